"""Attention with quantized operands. timm computes attention in one fused call, where nothing can be put between."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Attention
from timm.models.efficientformer import Attention as EfficientAttention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.params.reconstruct import Softmax
from pipeline_lib.quantization.quantizers import LogSqrt2Quantizer, UniformQuantizer


class _QuantAttention(nn.Module):
    """What every attention has: quantizers of q, k, v and the softmax."""

    def __init__(self, bits: int, softmax: Softmax) -> None:
        super().__init__()
        self.q_quantizer = UniformQuantizer(bits, symmetric=False)
        self.k_quantizer = UniformQuantizer(bits, symmetric=False)
        self.v_quantizer = UniformQuantizer(bits, symmetric=False)
        self.softmax_quantizer = (
            LogSqrt2Quantizer(bits) if softmax == "log-sqrt2" else UniformQuantizer(bits, symmetric=True)
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float, bias: Tensor | None) -> Tensor:
        """softmax(scale q k^T + bias) v; (batch, heads, tokens, head channels) -> (batch, tokens, channels)."""
        scores = (self.q_quantizer(q) * scale) @ self.k_quantizer(k).transpose(-2, -1)
        biased = scores if bias is None else torch.add(scores, bias)  # not +, which means a residual sum
        weights = self.softmax_quantizer(biased.softmax(-1))
        mixed: Tensor = weights @ self.v_quantizer(v)
        return mixed.transpose(1, 2).flatten(2)


def heads(qkv: Tensor, count: int) -> tuple[Tensor, ...]:
    """(batch, tokens, 3 * channels) -> q, k and v, each (batch, heads, tokens, head channels)."""
    batch, tokens, _ = qkv.shape
    return qkv.reshape(batch, tokens, 3, count, -1).permute(2, 0, 3, 1, 4).unbind(0)


class QuantAttention(_QuantAttention):
    """timm's Attention (ViT, DeiT), step by step."""

    def __init__(self, attention: Attention, bits: int, softmax: Softmax) -> None:
        super().__init__(bits, softmax)
        if attention.gate is not None:
            raise InputError("gated attention cannot be quantized yet; choose another model")
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.norm, self.proj, self.proj_drop = attention.norm, attention.proj, attention.proj_drop
        self.num_heads, self.scale = attention.num_heads, attention.scale

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:  # noqa: ARG002 timm passes both
        """(batch, tokens, channels) -> the same; masks are for text and have no effect."""
        q, k, v = heads(self.qkv(x), self.num_heads)
        mixed = self.attend(self.q_norm(q), self.k_norm(k), v, self.scale, None)
        output: Tensor = self.proj_drop(self.proj(self.norm(mixed)))
        return output


class QuantWindowAttention(_QuantAttention):
    """timm's WindowAttention (Swin), step by step."""

    relative_position_index: Tensor

    def __init__(self, attention: WindowAttention, bits: int, softmax: Softmax) -> None:
        super().__init__(bits, softmax)
        self.qkv, self.proj, self.proj_drop = attention.qkv, attention.proj, attention.proj_drop
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.register_buffer("relative_position_index", attention.relative_position_index, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch * windows, tokens, channels) -> the same; mask: (windows, tokens, tokens), 0 or -inf."""
        tokens = x.shape[1]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(tokens, tokens, -1).permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            bias = (bias + mask.unsqueeze(1)).repeat(len(x) // len(mask), 1, 1, 1)
        q, k, v = heads(self.qkv(x), self.num_heads)
        output: Tensor = self.proj_drop(self.proj(self.attend(q, k, v, self.scale, bias)))
        return output


class QuantEfficientAttention(_QuantAttention):
    """timm's attention of EfficientFormer: a learned bias for each distance, and wider values than keys."""

    attention_bias_idxs: Tensor

    def __init__(self, attention: EfficientAttention, bits: int, softmax: Softmax) -> None:
        super().__init__(bits, softmax)
        self.qkv, self.proj = attention.qkv, attention.proj
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.widths = [attention.key_dim, attention.key_dim, attention.val_dim]  # of a head's q, k and v
        self.attention_biases = attention.attention_biases
        self.register_buffer("attention_bias_idxs", attention.attention_bias_idxs)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) -> the same."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, self.num_heads, -1).transpose(1, 2)
        q, k, v = qkv.split(self.widths, dim=3)
        bias = self.attention_biases[:, self.attention_bias_idxs]
        output: Tensor = self.proj(self.attend(q, k, v, self.scale, bias))
        return output


QuantizeAttention = Callable[[Any, int, Softmax], nn.Module]  # of an attention, bits, and how its softmax is quantized
