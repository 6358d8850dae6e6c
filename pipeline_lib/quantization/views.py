"""Views of calibration images for the tuning of a whole network: other crops, mirrored, mixed two at a time.

A network's float logits can be had for any image, so a view has them of its own: nothing is assumed of what crops,
mirroring and mixup (Zhang et al. 2018) do to a class.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.quantization.caches import Cache, Feed

AREA = (0.5, 1.0)  # of a crop, as a share of the image's
ASPECT = (3 / 4, 4 / 3)  # of a crop, relative to the image's
MIXED = 0.4  # share of a view's images that are mixed with another
# Times that an image is seen as it is, on average. A short tuning on views is less accurate; a long one learns images
# that it sees often by heart.
REPEATS = 4


def draw_views(shape: tuple[int, int], images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Views for batches (iterations, batch size) of so many images: what `view` takes, but of all iterations.

    Each image is drawn REPEATS times as it is; a short tuning has no other views.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    area, aspect = uniform(*AREA), uniform(*map(math.log, ASPECT)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirror = uniform(-1, 1).sign()
    x, y = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    zero = torch.zeros(shape)
    crops = torch.stack([mirror * width, zero, x, zero, height, y], -1)
    weights = torch.where(uniform(0, 1) < MIXED, uniform(0, 1), 1.0)
    as_it_is = uniform(0, 1) < REPEATS * images / math.prod(shape)
    crops = torch.where(as_it_is.unsqueeze(-1), torch.tensor([1.0, 0, 0, 0, 1, 0]), crops)
    return crops.view(*shape, 2, 3), torch.where(as_it_is, 1.0, weights)


def view(images: Tensor, crops: Tensor, weights: Tensor) -> Tensor:
    """Views of images (n, c, h, w), in their memory format: each cropped, then mixed with the one before it.

    crops: (n, 2, 3), affine maps from places in the view to places in the image, both from -1 to 1; weights: (n), the
    image's own.
    """
    grid = functional.affine_grid(crops, list(images.shape), align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mixed = torch.lerp(cropped.roll(1, 0), cropped, weights.view(-1, 1, 1, 1))
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class ViewFeed:
    """Batches of views, new ones in every iteration, with the logits of the float network."""

    def __init__(self, images: Cache, network: nn.Module, choices: Tensor, seed: int) -> None:
        """choices: as for `Feed`; the seed determines the views."""
        self._feed, self._network = Feed([images], choices), network
        iterations, batch_size = choices.shape
        drawn = draw_views((iterations, batch_size), len(images), seed)
        self._drawn = [part.to(images.device) for part in drawn]
        self._now = [part[0].clone() for part in self._drawn]

    def load(self, iteration: int) -> None:
        """Fill the batch."""
        self._feed.load(iteration)
        for now, drawn in zip(self._now, self._drawn, strict=True):
            now.copy_(drawn[iteration])

    @torch.no_grad()
    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Input, the same again, and target, computed on the device alone."""
        (images,) = self._feed.batch()
        views = view(images, *self._now)
        return views, views, self._network(views)
