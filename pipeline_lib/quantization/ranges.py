"""Range search: where a low-bit grid clips, for all channels at once.

The errors of an activation count relative to the values of their image. In some networks the values of some images are
many times those of others (in a MobileNetV2 of the Fashion world twenty times, for one class of ten). By a plain mean
error the grid would suit these images, and most values of the others would be rounded to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.fakequant import fake_quant
from pipeline_lib.params.reconstruct import Ranges

RATIOS = 100  # candidates of the clipping ratio
PERCENTILES = (0.999, 0.9999, 0.99999)  # of RepQ-ViT
ERROR_EXPONENT = {"lp": 2.4, "percentile": 2.0, "minmax": 2.0}  # lp: of BRECQ, QDrop, GENIE
SMALLEST = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps  # of steps and of divisors
SAMPLE = 1 << 16  # values of an activation that a range is searched on
POWER_FLOOR = 1e-3  # of the median power, added to an image's power so that its errors do not count without bound


def draw(length: int, count: int, device: torch.device) -> Tensor:
    """All indices below `length`, or `count` at random: evenly spaced ones might all fall on a few columns."""
    if length <= count:
        return torch.arange(length, device=device)
    return torch.randint(length, (count,), generator=torch.Generator().manual_seed(0)).to(device)


@dataclass(frozen=True)
class ActivationSample:
    """Values of an activation, drawn at random."""

    values: Tensor  # (n,)
    powers: Tensor  # (n,): mean |x|^2.4, the exponent of `lp`, over the image that a value is from
    extremes: Tensor  # (2,): the lowest and the highest of all values, drawn or not

    @classmethod
    def of(cls, batch: Tensor) -> "ActivationSample":
        """At most SAMPLE values of a batch, (images, ...)."""
        powers = batch.abs().pow(ERROR_EXPONENT["lp"]).mean(tuple(range(1, batch.dim())))
        drawn = draw(batch.numel(), SAMPLE, batch.device)
        return cls(batch.flatten()[drawn], powers[drawn // batch[0].numel()], torch.stack(batch.aminmax()))

    @classmethod
    def joined(cls, samples: Sequence["ActivationSample"]) -> "ActivationSample":
        """At most SAMPLE values of several samples."""
        values = torch.cat([s.values for s in samples])
        powers = torch.cat([s.powers for s in samples])
        extremes = torch.stack(torch.cat([s.extremes for s in samples]).aminmax())
        drawn = draw(len(values), SAMPLE, values.device)
        return cls(values[drawn], powers[drawn], extremes)

    @property
    def weights(self) -> Tensor:
        """The weight, (n,), of an error of each value: the inverse power of its image."""
        return 1 / (self.powers + POWER_FLOOR * self.powers.median()).clamp(min=SMALLEST)


def search_asymmetric(
    x: Tensor, bits: int, axis: int | None, ranges: Ranges, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Step and integer zero point, per tensor or along `axis`, of the range with the least error.

    Args:
        x: values.
        bits: of the grid.
        axis: dimension of x that has a grid for each index; none: one grid for all.
        ranges: how candidates are made.
        weights: of the errors, in the shape of x; none: all count the same.
    """
    ends = [(low.clamp(max=0), high.clamp(min=0)) for low, high in candidates(x, axis, ranges)]
    return _best(x, ends, 0, 2**bits - 1, axis, ranges, weights=weights)


def search_centred(x: Tensor, bits: int, axis: int | None, ranges: Ranges) -> tuple[Tensor, Tensor]:
    """Step and zero point of a symmetric grid: its levels are unsigned, and the zero point is in their middle."""
    bounds = [torch.maximum(-low, high) for low, high in candidates(x, axis, ranges)]
    ends = [(-bound, bound) for bound in bounds]
    return _best(x, ends, 0, 2**bits - 1, axis, ranges, zero_point=2 ** (bits - 1))


def search_symmetric(
    x: Tensor, bits: int, ranges: Ranges, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, int, int]:
    """Step, zero point 0, lowest and highest level of a per-tensor symmetric grid; unsigned if no value is negative."""
    signed = bool(x.min() < 0)
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    bounds = [torch.maximum(-low, high) for low, high in candidates(x, None, ranges)]
    ends = [(-bound if signed else torch.zeros_like(bound), bound) for bound in bounds]
    step, zero = _best(x, ends, qmin, qmax, None, ranges, zero_point=0, weights=weights)
    return step, zero, qmin, qmax


def candidates(x: Tensor, axis: int | None, ranges: Ranges) -> list[tuple[Tensor, Tensor]]:
    """Lower and upper ends of ranges, () or (channels,) each.

    For `lp` they are shares of the full range, for `percentile` percentiles of the values, for `minmax` the full range.
    """
    rows = x.flatten().unsqueeze(0) if axis is None else x.movedim(axis, 0).flatten(1)
    if ranges == "percentile":
        ends = [(rows.quantile(1 - p, 1), rows.quantile(p, 1)) for p in PERCENTILES]
    else:
        low, high = rows.amin(1), rows.amax(1)
        ratios = torch.linspace(1 / RATIOS, 1, RATIOS).tolist() if ranges == "lp" else [1.0]
        ends = [(low * ratio, high * ratio) for ratio in ratios]
    if axis is None:
        return [(low[0], high[0]) for low, high in ends]
    return ends


def _best(
    x: Tensor,
    ends: list[tuple[Tensor, Tensor]],
    qmin: int,
    qmax: int,
    axis: int | None,
    ranges: Ranges,
    *,
    zero_point: int | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Step and zero point of the range with the least mean |x - Q(x)|^ERROR_EXPONENT, weighted by `weights` if given.

    With `zero_point` all ranges have this one; otherwise each has its own.
    """
    best_error = torch.full_like(ends[0][0], torch.inf)
    best_step, best_zero = torch.ones_like(best_error), torch.zeros_like(best_error)
    for low, high in ends:
        step = ((high - low) / (qmax - qmin)).clamp(min=SMALLEST)
        own = (qmin - torch.round(low / step)).clamp(qmin, qmax)
        zero = own if zero_point is None else torch.full_like(step, zero_point)
        error = (x - fake_quant(x, step, zero, qmin, qmax, axis)).abs_().pow_(ERROR_EXPONENT[ranges])
        if weights is not None:
            error *= weights
        mean = error.mean() if axis is None else error.movedim(axis, 0).flatten(1).mean(1)
        better = mean < best_error
        best_error = torch.where(better, mean, best_error)
        best_step, best_zero = torch.where(better, step, best_step), torch.where(better, zero, best_zero)
    return best_step, best_zero
