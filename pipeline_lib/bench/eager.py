"""The operators as chains of PyTorch's own, as published quantization code writes them: what ours is compared with."""

from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant.reference import GAMMA, ZETA


class RoundStraightThrough(torch.autograd.Function):
    """round(), with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 autograd passes it
        """Half to even."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        """Pass the gradient on."""
        return grads[0]


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    """LSQ's chain."""
    shape = [-1 if d == axis else 1 for d in range(x.dim())] if axis is not None else []
    s, z = step.view(shape), zero_point.view(shape)
    rounded: Tensor = RoundStraightThrough.apply(x / s)
    return (torch.clamp(rounded + z, qmin, qmax) - z) * s


def fake_quant_drop(
    x: Tensor,
    step: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    p: float,
    seed: Tensor,  # noqa: ARG001
) -> Tensor:
    """LSQ's chain and QDrop's mask."""
    return torch.where(torch.rand_like(x) < p, fake_quant(x, step, zero_point, qmin, qmax, None), x)


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    """AdaRound's chain: the weight, and the value of the regulariser."""
    shape = [-1] + [1] * (v.dim() - 1)
    s, z = step.view(shape), zero_point.view(shape)
    h = torch.clamp(torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA, 0, 1)
    weight = s * (torch.clamp(base + h + z, qmin, qmax) - z)
    return weight, lam * (1 - (2 * h - 1).abs().pow(beta)).sum()


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    """RepQ-ViT's chain."""
    q: Tensor = RoundStraightThrough.apply(-2 * torch.log2((x / d).clamp(min=1e-20)))
    return torch.where(q >= 2**bits, 0.0, torch.exp2(-q.clamp(min=0) / 2) * d)
