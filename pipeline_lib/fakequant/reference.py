"""The operators in plain PyTorch: their documentation, the oracle of the compiled backends, and what runs without them.

They compute in float32 and return the dtype of their first argument, float32, float16 or bfloat16. Every line is one
IEEE operation an element, in the same order as in csrc/fake_quant_math.h: so all backends have the same bits. Rounding
is half to even. x / step is a division: a product with 1 / step would round some ties the other way. exp2 and log2 are
series of our own, because those of each library differ in the last bit.
"""

import torch
from torch import Tensor

# AdaRound's stretched sigmoid (Nagel et al. 2020): h(v) = clip((ZETA - GAMMA) sigmoid(v) + GAMMA, 0, 1).
ZETA, GAMMA = 1.1, -0.1
LOG2_E = 1.44269504088896341
EXP2_SERIES = (  # (ln 2)^k / k!, from the sixth power down
    1.5403530393381608e-4,
    1.3333558146428441e-3,
    9.6181291076284772e-3,
    5.5504108664821580e-2,
    2.4022650695910071e-1,
    6.9314718055994531e-1,
    1.0,
)
LOG2_SERIES = (  # 2 / (k ln 2), k = 9, 7, 5, 3, 1
    3.2059889797532521e-1,
    4.1219858311113240e-1,
    5.7707801635558535e-1,
    9.6179669392597560e-1,
    2.8853900817779268,
)
SMALLEST_NORMAL = 1.17549435e-38  # of float32
SQRT_HALF = 0x3F3504F3  # bits of 1 / sqrt 2
QUARTER, THREE_QUARTERS = 0x1837F1, 0x5744FD  # mantissas of 2^(1/4) and 2^(3/4)
TILE, LANES = 512, 32  # elements that share 32 counters of the mask's generator


def _along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """A per-channel parameter in a shape that broadcasts along `axis` of x; a per-tensor one, (), as it is."""
    return parameter if axis is None else parameter.view([-1 if d == axis else 1 for d in range(x.dim())])


def _reduce(elementwise: Tensor, axis: int | None) -> Tensor:
    """Sum over all dimensions but `axis`.

    In float64, because each backend adds in its own order, which would show in the last bits of a float32 sum.
    """
    dimensions = None if axis is None else [d for d in range(elementwise.dim()) if d != axis]
    return elementwise.sum(dimensions, dtype=torch.float64).float() if dimensions != [] else elementwise


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    """The values on a grid: step * (clip(round(x / step) + zero_point, qmin, qmax) - zero_point).

    Args:
        x: values.
        step, zero_point: of the grid, float32: () for all of x, or (channels,) along `axis`; zero_point is whole.
        qmin, qmax: lowest and highest level.
        axis: dimension of x with a grid for each index; none: one grid for all.
    """
    s, z = _along(step, x, axis), _along(zero_point, x, axis)
    return torch.div(x.float(), s).round_().add_(z).clamp_(qmin, qmax).sub_(z).mul_(s).to(x.dtype)


def _straight_through(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    """Where the grid does not clip, boolean, and the derivative of each output by the step; both in the shape of x."""
    s, z = _along(step, x, axis), _along(zero_point, x, axis)
    ratio = torch.div(x.float(), s)
    rounded = ratio.round()
    level = rounded + z
    clipped = level.clamp(qmin, qmax)
    inside = level == clipped
    return inside, torch.where(inside, rounded.sub_(ratio), clipped.sub_(z))


def fake_quant_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    """Straight-through gradient to x, and LSQ's to the step (Esser et al. 2020, without its scale factor).

    Args:
        grad: gradient to the output, in the shape and dtype of x.
        x, step, zero_point, qmin, qmax, axis: what `fake_quant` was given.
    """
    inside, by_step = _straight_through(x, step, zero_point, qmin, qmax, axis)
    return grad * inside, _reduce(by_step.mul_(grad), axis)


def philox(counters: Tensor, seed: Tensor) -> Tensor:
    """Philox4x32-10 (Salmon et al. 2011): of counters, int64 (n,), four words each, int64 (n, 4) below 2^32."""
    low = 0xFFFFFFFF
    c0, c1 = counters & low, counters >> 32
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    k0, k1 = seed & low, (seed >> 32) & low
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps; the bits are those of the unsigned product
        c0, c1 = ((b >> 32) & low) ^ c1 ^ k0, b & low
        c2, c3 = ((a >> 32) & low) ^ c3 ^ k1, a & low
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return torch.stack([c0, c1, c2, c3], 1)


def keep_mask(x: Tensor, p: float, seed: Tensor) -> Tensor:
    """A boolean mask, laid out in memory as x, which must be dense: true with probability p, in steps of 1/256.

    It depends on the seed and on an element's place in memory alone. An element takes one random byte: word k of
    counter t * 32 + lane serves the elements from t * 512 + k * 128 + lane * 4 to the third after, so that the threads
    of a warp touch consecutive memory.
    """
    tiles = max(1, -(-x.numel() // TILE))
    words = philox(torch.arange(tiles * LANES, device=x.device), seed)
    signed = words - ((words >> 31) << 32)
    draws = signed.to(torch.int32).view(tiles, LANES, 4).transpose(1, 2).contiguous().view(torch.uint8).flatten()
    return draws.as_strided(x.shape, x.stride()).short() < keep_threshold(p)  # 256 is past the range of a byte


def keep_threshold(p: float) -> int:
    """The number below which a random byte means that the mask is true."""
    return round(256 * p)


def fake_quant_drop(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> Tensor:
    """QDrop (Wei et al. 2022), per tensor: each value is quantized with probability p, else it stays float.

    Args:
        x: values.
        step, zero_point: of the grid, float32 (); zero_point is whole.
        qmin, qmax: lowest and highest level.
        p: probability that a value is quantized, in steps of 1/256.
        seed: of the mask, int64 ().
    """
    return torch.where(keep_mask(x, p, seed), fake_quant(x, step, zero_point, qmin, qmax, None), x)


def fake_quant_drop_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    """As `fake_quant_backward`; values that stayed float pass the gradient on and give none to the step.

    The mask is made again, not stored.

    Args:
        grad: gradient to the output, in the shape and dtype of x.
        x, step, zero_point, qmin, qmax, p, seed: what `fake_quant_drop` was given.
    """
    mask = keep_mask(x, p, seed)
    inside, by_step = _straight_through(x, step, zero_point, qmin, qmax, None)
    dstep = _reduce(by_step.mul_(grad).masked_fill_(~mask, 0), None)
    return grad * inside.logical_or_(mask.logical_not_()), dstep


def mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> Tensor:
    """QDrop's mixing of two tensors laid out alike: an element is x's with probability p, else y's. No gradient."""
    return torch.where(keep_mask(x, p, seed), x, y)


def _series(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value.mul_(x).add_(coefficient)
    return value


def _exp2(t: Tensor) -> Tensor:
    """2^t for t clamped to [-126, 127], within 2e-7."""
    t = t.clamp(-126, 127)
    n = t.round()
    power = ((n.to(torch.int32) + 127) << 23).view(torch.float32)
    return _series(EXP2_SERIES, t.sub_(n)).mul_(power)


def _log2(x: Tensor) -> Tensor:
    """log2 of positive normal numbers: the exponent, and 2 atanh((m - 1) / (m + 1)) / ln 2 of the mantissa."""
    bits = x.view(torch.int32)
    exponent = (bits - SQRT_HALF) >> 23
    m = (bits - (exponent << 23)).view(torch.float32)
    s = (m - 1).div_(m + 1)
    return _series(LOG2_SERIES, s * s).mul_(s).add_(exponent)


def sigmoid(v: Tensor) -> Tensor:
    """1 / (1 + e^-v) of float32."""
    return 1 / _exp2(v * -LOG2_E).add_(1)


def soft_bits(v: Tensor) -> Tensor:
    """h(v): how far a weight is rounded up, in [0, 1]."""
    return sigmoid(v).mul_(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1)


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> Tensor:
    """AdaRound weights, per channel on axis 0: step * (clip(base + h(v) + zero_point, qmin, qmax) - zero_point).

    Args:
        v: rounding variables, float32, in the shape of the weight w.
        base: floor(w / step) of the float weight, int8 or int16, in the shape of v.
        step, zero_point: of the grid, float32 (channels,); zero_point is whole.
        qmin, qmax: lowest and highest level.
        beta, lam: exponent and weight of the regulariser, float32 (); they matter in the backward alone.
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
    """Gradient to v, with that of the regulariser lam * sum(1 - |2 h - 1|^beta), and to the step as in GENIE-M.

    The latter is clip(base + h + zero_point, qmin, qmax) - zero_point, times grad, summed over a channel. Where h is
    clipped v gets no gradient: its rounding is decided.

    Args:
        grad: gradient to the output, float32, in the shape of v.
        v, base, step, zero_point, qmin, qmax, beta, lam: what `soft_round` was given.
    """
    s, z = _along(step, v, 0), _along(zero_point, v, 0)
    probability = sigmoid(v)
    stretched = probability * (ZETA - GAMMA) + GAMMA
    h = stretched.clamp(0, 1)
    level = h + base + z
    clipped = level.clamp(qmin, qmax)
    dstep = _reduce((clipped - z) * grad, 0)
    centred = h * 2 - 1
    distance = centred.abs().clamp_(min=SMALLEST_NORMAL)
    regulariser = torch.copysign(_exp2(_log2(distance).mul_(beta - 1)), centred).mul_(-2 * lam * beta)
    through = torch.where(level == clipped, grad * s, 0)
    slope = torch.where(stretched == h, probability * (ZETA - GAMMA) * (1 - probability), 0)
    return (through + regulariser) * slope, dstep


def rounding_regulariser(v: Tensor, beta: Tensor, lam: Tensor) -> Tensor:
    """AdaRound's regulariser, lam * sum(1 - |2 h - 1|^beta), a scalar; `soft_round_backward` has its gradient."""
    return lam * (1 - (soft_bits(v) * 2 - 1).abs().pow(beta)).sum()


def _log_sqrt2_level(r: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Levels max(0, round(-2 log2 r)), from exponent and mantissa; and where the value becomes 0, boolean."""
    bits = r.view(torch.int32)
    mantissa = bits & 0x7FFFFF
    q = ((bits >> 23) & 255).sub_(127).mul_(-2)
    q.sub_((mantissa >= QUARTER).int()).sub_((mantissa >= THREE_QUARTERS).int())
    return q.clamp(min=0), (r < SMALLEST_NORMAL) | (q >= levels)


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    """RepQ-ViT's quantizer after softmax: d * 2^(-q / 2) with q = round(-2 log2(x / d)), and 0 where q >= 2^bits.

    `d` is the highest level, float32 ().
    """
    r = torch.div(x.float(), d)
    q, dropped = _log_sqrt2_level(r, 2**bits)
    power = ((127 - (q >> 1)) << 23).view(torch.float32)
    odd = torch.where((q & 1).bool(), 0.707106781186547524, 1.0)
    return torch.where(r.isnan(), r, power.mul_(odd).mul_(d).masked_fill_(dropped, 0)).to(x.dtype)


def log_sqrt2_quant_backward(grad: Tensor, x: Tensor, d: Tensor, bits: int) -> Tensor:
    """The gradient passed straight through, zero where the output is 0."""
    return grad.masked_fill(_log_sqrt2_level(torch.div(x.float(), d), 2**bits)[1], 0)
