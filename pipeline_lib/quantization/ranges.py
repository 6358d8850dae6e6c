"""Range search: the clipping that a low-bit grid needs, one dimension, all channels at once."""

import torch
from torch import Tensor

from pipeline_lib.fakequant import fake_quant

RATIOS = 100  # candidates of the clipping ratio
NORM = 2.4  # exponent of the error, as in BRECQ, QDrop and GENIE
SAMPLE = 1 << 14  # values of an activation that the search looks at


def subsample(x: Tensor) -> Tensor:
    """At most SAMPLE values of a tensor, evenly spaced."""
    flat = x.flatten()
    return flat[:: max(1, flat.numel() // SAMPLE)]


def search_asymmetric(x: Tensor, bits: int, axis: int | None) -> tuple[Tensor, Tensor]:
    """Step and integer zero point, per tensor or along `axis`, that minimise the mean of |x - Q(x)|^2.4."""
    low, high = _extremes(x, axis)
    return _search(x, low.clamp(max=0), high.clamp(min=0), 0, 2**bits - 1, axis)


def search_symmetric(x: Tensor, bits: int) -> tuple[Tensor, Tensor, int, int]:
    """Step, zero point 0 and the levels of a per-tensor symmetric grid, unsigned if no value is negative."""
    low, high = _extremes(x, None)
    signed = bool(low < 0)
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    bound = torch.maximum(-low, high)
    step, zero_point = _search(x, -bound if signed else torch.zeros_like(bound), bound, qmin, qmax, None, fixed=True)
    return step, zero_point, qmin, qmax


def _extremes(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    if axis is None:
        return x.min(), x.max()
    rows = x.movedim(axis, 0).flatten(1)
    return rows.amin(1), rows.amax(1)


def _search(
    x: Tensor, low: Tensor, high: Tensor, qmin: int, qmax: int, axis: int | None, *, fixed: bool = False
) -> tuple[Tensor, Tensor]:
    """Try every ratio of the full range; `fixed` keeps the zero point at 0."""
    smallest = torch.finfo(x.dtype).tiny / torch.finfo(x.dtype).eps
    best_error = torch.full_like(low, torch.inf)
    best_step, best_zero = torch.ones_like(low), torch.zeros_like(low)
    for ratio in torch.linspace(1 / RATIOS, 1, RATIOS).tolist():
        step = ((high - low) * ratio / (qmax - qmin)).clamp(min=smallest)
        zero = torch.zeros_like(step) if fixed else (qmin - torch.round(low * ratio / step)).clamp(qmin, qmax)
        error = (x - fake_quant(x, step, zero, qmin, qmax, axis)).abs_().pow_(NORM)
        mean = error.mean() if axis is None else error.movedim(axis, 0).flatten(1).mean(1)
        better = mean < best_error
        best_error = torch.where(better, mean, best_error)
        best_step, best_zero = torch.where(better, step, best_step), torch.where(better, zero, best_zero)
    return best_step, best_zero
