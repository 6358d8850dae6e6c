"""Range search: the clipping that a low-bit grid needs, one dimension, all channels at once."""

import torch
from torch import Tensor

from pipeline_lib.fakequant import fake_quant
from pipeline_lib.params.reconstruct import Ranges

RATIOS = 100  # candidates of the clipping ratio
PERCENTILES = (0.999, 0.9999, 0.99999)  # of RepQ-ViT
NORM = {"lp": 2.4, "percentile": 2.0, "minmax": 2.0}  # exponent of the error: BRECQ, QDrop, GENIE; RepQ-ViT
SAMPLE = 1 << 14  # values of an activation that the search looks at


def subsample(x: Tensor) -> Tensor:
    """At most SAMPLE values of a tensor, evenly spaced."""
    flat = x.flatten()
    return flat[:: max(1, flat.numel() // SAMPLE)]


def search_asymmetric(x: Tensor, bits: int, axis: int | None, how: Ranges) -> tuple[Tensor, Tensor]:
    """Step and integer zero point, per tensor or along `axis`, of the range with the least error."""
    ranges = [(low.clamp(max=0), high.clamp(min=0)) for low, high in candidates(x, axis, how)]
    return _best(x, ranges, 0, 2**bits - 1, axis, how)


def search_symmetric(x: Tensor, bits: int, how: Ranges) -> tuple[Tensor, Tensor, int, int]:
    """Step, zero point 0 and the levels of a per-tensor symmetric grid, unsigned if no value is negative."""
    signed = bool(x.min() < 0)
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    bounds = [torch.maximum(-low, high) for low, high in candidates(x, None, how)]
    ranges = [(-bound if signed else torch.zeros_like(bound), bound) for bound in bounds]
    step, zero_point = _best(x, ranges, qmin, qmax, None, how, fixed=True)
    return step, zero_point, qmin, qmax


def candidates(x: Tensor, axis: int | None, how: Ranges) -> list[tuple[Tensor, Tensor]]:
    """Lower and upper ends: shares of the full range (`lp`), percentiles of the values, or the full range alone."""
    rows = x.flatten().unsqueeze(0) if axis is None else x.movedim(axis, 0).flatten(1)
    if how == "percentile":
        ends = [(rows.quantile(1 - p, 1), rows.quantile(p, 1)) for p in PERCENTILES]
    else:
        low, high = rows.amin(1), rows.amax(1)
        ratios = torch.linspace(1 / RATIOS, 1, RATIOS).tolist() if how == "lp" else [1.0]
        ends = [(low * ratio, high * ratio) for ratio in ratios]
    return [(low[0], high[0]) for low, high in ends] if axis is None else ends


def _best(
    x: Tensor,
    ranges: list[tuple[Tensor, Tensor]],
    qmin: int,
    qmax: int,
    axis: int | None,
    how: Ranges,
    *,
    fixed: bool = False,
) -> tuple[Tensor, Tensor]:
    """The range with the least mean |x - Q(x)|^NORM; `fixed` keeps the zero point at 0."""
    smallest = torch.finfo(x.dtype).tiny / torch.finfo(x.dtype).eps
    best_error = torch.full_like(ranges[0][0], torch.inf)
    best_step, best_zero = torch.ones_like(best_error), torch.zeros_like(best_error)
    for low, high in ranges:
        step = ((high - low) / (qmax - qmin)).clamp(min=smallest)
        zero = torch.zeros_like(step) if fixed else (qmin - torch.round(low / step)).clamp(qmin, qmax)
        error = (x - fake_quant(x, step, zero, qmin, qmax, axis)).abs_().pow_(NORM[how])
        mean = error.mean() if axis is None else error.movedim(axis, 0).flatten(1).mean(1)
        better = mean < best_error
        best_error = torch.where(better, mean, best_error)
        best_step, best_zero = torch.where(better, step, best_step), torch.where(better, zero, best_zero)
    return best_step, best_zero
