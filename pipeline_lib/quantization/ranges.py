"""Range search: the clipping that a low-bit grid needs, one dimension, all channels at once.

Errors of an activation count relative to the image that they are of. A network may answer some images with values many
times those of others (a MobileNetV2 of the Fashion world: twenty times, for one class of ten); a plain mean would give
these images the grid and round most values of the others to zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline_lib.fakequant import fake_quant
from pipeline_lib.params.reconstruct import Ranges

RATIOS = 100  # candidates of the clipping ratio
PERCENTILES = (0.999, 0.9999, 0.99999)  # of RepQ-ViT
NORM = {"lp": 2.4, "percentile": 2.0, "minmax": 2.0}  # exponent of the error: BRECQ, QDrop, GENIE; RepQ-ViT
SMALLEST = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps  # step
SAMPLE = 1 << 16  # values of an activation that the search looks at
POWER_FLOOR = 1e-3  # share of the median power below which an image counts no more than one of that power


def draw(length: int, count: int, device: torch.device) -> Tensor:
    """At most `count` indices of `length`, at random: even spacing would see some columns of an image alone."""
    if length <= count:
        return torch.arange(length, device=device)
    return torch.randint(length, (count,), generator=torch.Generator().manual_seed(0)).to(device)


@dataclass(frozen=True)
class ActivationSample:
    """Values of an activation, drawn at random."""

    values: Tensor  # (n,)
    powers: Tensor  # (n,): of the image that each is from, mean |x|^NORM over it
    extremes: Tensor  # (2,): the lowest and the highest of all values, drawn or not

    @classmethod
    def of(cls, batch: Tensor) -> "ActivationSample":
        """At most SAMPLE values of a batch, (images, ...)."""
        powers = batch.abs().pow(NORM["lp"]).mean(tuple(range(1, batch.dim())))
        drawn = draw(batch.numel(), SAMPLE, batch.device)
        return cls(batch.flatten()[drawn], powers[drawn // batch[0].numel()], torch.stack(batch.aminmax()))

    @classmethod
    def joined(cls, samples: Sequence["ActivationSample"]) -> "ActivationSample":
        """At most SAMPLE values of several."""
        values, powers = torch.cat([s.values for s in samples]), torch.cat([s.powers for s in samples])
        extremes = torch.stack(torch.cat([s.extremes for s in samples]).aminmax())
        drawn = draw(len(values), SAMPLE, values.device)
        return cls(values[drawn], powers[drawn], extremes)

    @property
    def weights(self) -> Tensor:
        """What an error of each value counts: by the inverse power of its image."""
        return 1 / (self.powers + POWER_FLOOR * self.powers.median()).clamp(min=SMALLEST)


def search_asymmetric(
    x: Tensor, bits: int, axis: int | None, ranges: Ranges, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Step and integer zero point, per tensor or along `axis`, of the range with the least error.

    Args:
        x: values.
        bits: of a level.
        axis: dimension of x that has a grid for each index; none: one grid for all.
        ranges: how candidates are made.
        weights: of the errors, of the shape of x; none: all alike.
    """
    ends = [(low.clamp(max=0), high.clamp(min=0)) for low, high in candidates(x, axis, ranges)]
    return _best(x, ends, 0, 2**bits - 1, axis, ranges, weights=weights)


def search_centred(x: Tensor, bits: int, axis: int | None, ranges: Ranges) -> tuple[Tensor, Tensor]:
    """Step and zero point of a signed symmetric grid, as an unsigned one with the zero point in the middle."""
    bounds = [torch.maximum(-low, high) for low, high in candidates(x, axis, ranges)]
    ends = [(-bound, bound) for bound in bounds]
    return _best(x, ends, 0, 2**bits - 1, axis, ranges, zero_point=2 ** (bits - 1))


def search_symmetric(
    x: Tensor, bits: int, ranges: Ranges, weights: Tensor | None = None
) -> tuple[Tensor, Tensor, int, int]:
    """Step, zero point 0 and the levels of a per-tensor symmetric grid, unsigned if no value is negative."""
    signed = bool(x.min() < 0)
    qmin, qmax = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    bounds = [torch.maximum(-low, high) for low, high in candidates(x, None, ranges)]
    ends = [(-bound if signed else torch.zeros_like(bound), bound) for bound in bounds]
    step, zero = _best(x, ends, qmin, qmax, None, ranges, zero_point=0, weights=weights)
    return step, zero, qmin, qmax


def candidates(x: Tensor, axis: int | None, ranges: Ranges) -> list[tuple[Tensor, Tensor]]:
    """Lower and upper ends: shares of the full range (`lp`), percentiles of the values, or the full range alone."""
    rows = x.flatten().unsqueeze(0) if axis is None else x.movedim(axis, 0).flatten(1)
    if ranges == "percentile":
        ends = [(rows.quantile(1 - p, 1), rows.quantile(p, 1)) for p in PERCENTILES]
    else:
        low, high = rows.amin(1), rows.amax(1)
        ratios = torch.linspace(1 / RATIOS, 1, RATIOS).tolist() if ranges == "lp" else [1.0]
        ends = [(low * ratio, high * ratio) for ratio in ratios]
    return [(low[0], high[0]) for low, high in ends] if axis is None else ends


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
    """The range with the least mean |x - Q(x)|^NORM, weighted if so asked; its own zero point, or this one."""
    best_error = torch.full_like(ends[0][0], torch.inf)
    best_step, best_zero = torch.ones_like(best_error), torch.zeros_like(best_error)
    for low, high in ends:
        step = ((high - low) / (qmax - qmin)).clamp(min=SMALLEST)
        own = (qmin - torch.round(low / step)).clamp(qmin, qmax)
        zero = own if zero_point is None else torch.full_like(step, zero_point)
        error = (x - fake_quant(x, step, zero, qmin, qmax, axis)).abs_().pow_(NORM[ranges])
        if weights is not None:
            error *= weights
        mean = error.mean() if axis is None else error.movedim(axis, 0).flatten(1).mean(1)
        better = mean < best_error
        best_error = torch.where(better, mean, best_error)
        best_step, best_zero = torch.where(better, step, best_step), torch.where(better, zero, best_zero)
    return best_step, best_zero
