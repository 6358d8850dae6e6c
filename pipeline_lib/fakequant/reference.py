"""The operators in plain PyTorch: their documentation, the oracle of the compiled backends, and what runs without them.

Rounding is half to even; x / step is a true division, never a product with 1 / step, because ties differ.
"""

import torch
from torch import Tensor

# AdaRound's stretched sigmoid (Nagel et al. 2020): h(v) = clip((ZETA - GAMMA) sigmoid(v) + GAMMA, 0, 1).
ZETA, GAMMA = 1.1, -0.1


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape a per-channel parameter to broadcast along `axis` of x; a per-tensor one has no dimension."""
    return parameter if axis is None else parameter.view([-1 if d == axis else 1 for d in range(x.dim())])


def _reduce(elementwise: Tensor, axis: int | None) -> Tensor:
    return elementwise.sum() if axis is None else elementwise.sum([d for d in range(elementwise.dim()) if d != axis])


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    """Give step * (clip(round(x / step) + zero_point, qmin, qmax) - zero_point)."""
    s, z = _along(step, x, axis), _along(zero_point, x, axis)
    return torch.div(x, s).round_().add_(z).clamp_(qmin, qmax).sub_(z).mul_(s)


def _straight_through(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    """Where the grid does not clip, boolean; and the derivative by the step, element by element."""
    s, z = _along(step, x, axis), _along(zero_point, x, axis)
    ratio = torch.div(x, s)
    rounded = ratio.round()
    level = rounded + z
    clipped = level.clamp(qmin, qmax)
    inside = level == clipped
    return inside, torch.where(inside, rounded.sub_(ratio), clipped.sub_(z))


def fake_quant_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    """Straight-through gradient to x, and LSQ's to the step (Esser et al. 2020, without its scale factor)."""
    inside, by_step = _straight_through(x, step, zero_point, qmin, qmax, axis)
    return grad * inside, _reduce(by_step.mul_(grad), axis)


def keep_mask(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """Boolean, laid out in memory as x, true with probability p in steps of 1/256; a function of the seed alone."""
    threshold = round(256 * p)
    if threshold > 255:  # past the range of a byte
        return torch.ones_like(x, dtype=torch.bool)
    generator = torch.Generator(device=x.device).manual_seed(int(seed))
    # One byte an element, eight from each draw: drawing is the dearest part of QDrop on a CPU.
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    draws = words.random_(-(2**63), None, generator=generator).view(torch.uint8)
    return draws.as_strided(x.shape, torch.empty_like(x, dtype=torch.uint8).stride()) < threshold


def fake_quant_drop(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> Tensor:
    """QDrop (Wei et al. 2022), per tensor: each value is quantized with probability p, else it stays float."""
    return torch.where(keep_mask(x, p, seed), fake_quant(x, step, zero_point, qmin, qmax, None), x)


def fake_quant_drop_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """Values that stayed float pass the gradient and give none to the step. The mask is made again, not stored."""
    mask = keep_mask(x, p, seed)
    inside, by_step = _straight_through(x, step, zero_point, qmin, qmax, None)
    dstep = by_step.mul_(grad).mul_(mask).sum()
    return grad * inside.logical_or_(mask.logical_not_()), dstep


def soft_bits(v: Tensor) -> Tensor:
    """h(v): how far a weight is rounded up, in [0, 1]."""
    return torch.sigmoid(v).mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> Tensor:
    """AdaRound weights, per channel on axis 0: step * (clip(base + h(v) + zero_point, qmin, qmax) - zero_point).

    `base` is floor(w / step) at the start, int8 or wider, and stays. beta and lam matter in the backward alone.
    """
    s, z = _along(step, v, 0), _along(zero_point, v, 0)
    return soft_bits(v).add_(base).add_(z).clamp_(qmin, qmax).sub_(z).mul_(s)


def soft_round_backward(
    grad: Tensor,
    v: Tensor,
    base: Tensor,
    step: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    beta: Tensor,
    lam: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradient to v, that of lam * sum(1 - |2 h - 1|^beta) included, and to the step, GENIE-M's clip(.) - zero_point.

    Where h is clipped its gradient is exactly zero: that bit is frozen.
    """
    s, z = _along(step, v, 0), _along(zero_point, v, 0)
    sigmoid = torch.sigmoid(v)
    stretched = sigmoid * (ZETA - GAMMA) + GAMMA
    h = stretched.clamp(0, 1)
    level = h + base + z
    clipped = level.clamp(qmin, qmax)
    dstep = _reduce((clipped - z) * grad, 0)
    centred = 2 * h - 1
    regulariser = -2 * lam * beta * centred.abs().pow(beta - 1) * centred.sign()
    dh = grad * s * (level == clipped) + regulariser
    slope = (ZETA - GAMMA) * sigmoid * (1 - sigmoid) * ((stretched > 0) & (stretched < 1))
    return dh * slope, dstep


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    """RepQ-ViT's quantizer after softmax: q = round(-2 log2(x / d)); d * 2^(-q / 2), and 0 where q >= 2^bits."""
    q = torch.div(x, d).log2_().mul_(-2).round_().clamp_(min=0)
    return q.masked_fill_(q >= 2**bits, torch.inf).mul_(-0.5).exp2_().mul_(d)


def log_sqrt2_quant_backward(grad: Tensor, x: Tensor, d: Tensor, bits: int) -> Tensor:
    """Straight through, zero where the value was flushed to 0."""
    q = torch.div(x, d).log2_().mul_(-2).round_()
    return torch.where(q >= 2**bits, 0.0, grad)
