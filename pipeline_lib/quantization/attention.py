"""Attention with quantized operands: timm fuses it by default, so that they are not visible."""

from typing import Literal

from timm.layers import Attention
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.quantization.quantizers import LogSqrt2Quantizer, UniformQuantizer


class QuantAttention(nn.Module):
    """timm's Attention, unfused, with quantizers on q, k, v and the softmax."""

    def __init__(self, attention: Attention, bits: int, softmax: Literal["log-sqrt2", "uniform"]) -> None:
        super().__init__()
        if attention.gate is not None:
            raise InputError("gated attention cannot be quantized yet; choose another model")
        self.qkv, self.q_norm, self.k_norm = attention.qkv, attention.q_norm, attention.k_norm
        self.norm, self.proj, self.proj_drop = attention.norm, attention.proj, attention.proj_drop
        self.num_heads, self.head_dim, self.scale = attention.num_heads, attention.head_dim, attention.scale
        self.q_quantizer = UniformQuantizer(bits, symmetric=False)
        self.k_quantizer = UniformQuantizer(bits, symmetric=False)
        self.v_quantizer = UniformQuantizer(bits, symmetric=False)
        self.softmax_quantizer = (
            LogSqrt2Quantizer(bits) if softmax == "log-sqrt2" else UniformQuantizer(bits, symmetric=True)
        )

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:  # noqa: ARG002 timm passes both
        """(batch, tokens, channels) -> the same; masks are for text and have no effect."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = self.q_quantizer(self.q_norm(q)), self.k_quantizer(self.k_norm(k))
        weights = self.softmax_quantizer(((q * self.scale) @ k.transpose(-2, -1)).softmax(-1))
        mixed = (weights @ self.v_quantizer(v)).transpose(1, 2).reshape(batch, tokens, -1)
        output: Tensor = self.proj_drop(self.proj(self.norm(mixed)))
        return output
