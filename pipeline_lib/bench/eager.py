"""The operators as chains of PyTorch's own, as published quantization code writes them: ours are compared with these.

The arguments are those of pipeline_lib/fakequant/reference.py.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant.reference import GAMMA, ZETA


class RoundStraightThrough(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 autograd passes it
        """Round half to even."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        """Pass the gradient on."""
        return grads[0]


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    """The chain of LSQ's published code.

    Args:
        x: values.
        step, zero_point: of the grid, float32: () for all of x, or (channels,) along `axis`; zero_point is whole.
        qmin, qmax: lowest and highest level.
        axis: dimension of x with a grid for each index; none: one grid for all.
    """
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
    """The chain of LSQ, and QDrop's mask from PyTorch's own generator.

    Args:
        x: values.
        step, zero_point: of the grid, float32 (); zero_point is whole.
        qmin, qmax: lowest and highest level.
        p: probability that a value is quantized.
        seed: the operator's; not used here.
    """
    return torch.where(torch.rand_like(x) < p, fake_quant(x, step, zero_point, qmin, qmax, None), x)


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> tuple[Tensor, Tensor]:
    """The chain of AdaRound: the weight, in the shape of v, and the value of the regulariser.

    Args:
        v: rounding variables, float32, in the shape of the weight.
        base: floor of the float weight over its step, in the shape of v.
        step, zero_point: of the grid, float32 (channels,); zero_point is whole.
        qmin, qmax: lowest and highest level.
        beta, lam: exponent and weight of the regulariser, float32 ().
    """
    shape = [-1] + [1] * (v.dim() - 1)
    s, z = step.view(shape), zero_point.view(shape)
    h = torch.clamp(torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA, 0, 1)
    weight = s * (torch.clamp(base + h + z, qmin, qmax) - z)
    return weight, lam * (1 - (2 * h - 1).abs().pow(beta)).sum()


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    """The chain of RepQ-ViT."""
    q: Tensor = RoundStraightThrough.apply(-2 * torch.log2((x / d).clamp(min=1e-20)))
    return torch.where(q >= 2**bits, 0.0, torch.exp2(-q.clamp(min=0) / 2) * d)
