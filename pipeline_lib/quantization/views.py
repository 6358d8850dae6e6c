"""Views of calibration images for the tuning of a whole network: cropped, mirrored, mixed two at a time.

The target of a view is what the float network predicts for the view itself. So it need not be assumed that a crop, a
mirror image or a mixture (mixup, Zhang et al. 2018) has the classes of its images.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.quantization.caches import Cache, Feed

AREA = (0.5, 1.0)  # of a crop: lowest and highest share of the image's area
ASPECT = (3 / 4, 4 / 3)  # of a crop: lowest and highest ratio of width to height, relative to the image's
MIXED = 0.4  # share of a view's images that are mixed with another
# How often an image is taken as it is, on average; all else are views. With views a short tuning is less accurate, and
# without them a long one overfits the images.
REPEATS = 4


def draw_views(shape: tuple[int, int], images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Crops, (iterations, batch size, 2, 3), and weights, (iterations, batch size), as `view` takes them.

    Of a tuning on `images` images whose batches have `shape`, (iterations, batch size). On average an image is taken
    REPEATS times as it is; a tuning that takes each no more often than that has no other views.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    area = uniform(*AREA)
    aspect = uniform(math.log(ASPECT[0]), math.log(ASPECT[1])).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    mirror = uniform(-1, 1).sign()
    x = uniform(-1, 1) * (1 - width)
    y = uniform(-1, 1) * (1 - height)
    zero = torch.zeros(shape)
    crops = torch.stack([mirror * width, zero, x, zero, height, y], -1)
    weights = torch.where(uniform(0, 1) < MIXED, uniform(0, 1), 1.0)
    as_it_is = uniform(0, 1) < REPEATS * images / math.prod(shape)
    crops = torch.where(as_it_is.unsqueeze(-1), torch.tensor([1.0, 0, 0, 0, 1, 0]), crops)
    return crops.view(*shape, 2, 3), torch.where(as_it_is, 1.0, weights)


def view(images: Tensor, crops: Tensor, weights: Tensor) -> Tensor:
    """Views of images (n, c, h, w), in their memory format: each is cropped, then mixed with the one before it.

    `crops`: (n, 2, 3), affine maps from places in the view to places in the image, both from -1 to 1. `weights`: (n,),
    of the image itself in the mixture.
    """
    grid = functional.affine_grid(crops, list(images.shape), align_corners=False)
    cropped = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mixed = torch.lerp(cropped.roll(1, 0), cropped, weights.view(-1, 1, 1, 1))
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


class ViewFeed:
    """Batches of views, new ones in every iteration, with the logits of the float network."""

    def __init__(self, images: Cache, network: nn.Module, choices: Tensor, seed: int) -> None:
        """`choices`: images of each iteration, as for `Feed`; `seed`: of the views."""
        self._feed = Feed([images], choices)
        self._network = network
        iterations, batch_size = choices.shape
        drawn = draw_views((iterations, batch_size), len(images), seed)
        self._drawn = [part.to(images.device) for part in drawn]  # crops and weights of all iterations
        self._loaded = [part[0].clone() for part in self._drawn]  # those of this iteration

    def load(self, iteration: int) -> None:
        """Fetch the images of an iteration, their crops and their weights."""
        self._feed.load(iteration)
        for loaded, drawn in zip(self._loaded, self._drawn, strict=True):
            loaded.copy_(drawn[iteration])

    @torch.no_grad()
    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views, the same views as the float input, and the float network's logits for them."""
        (images,) = self._feed.batch()
        views = view(images, *self._loaded)
        return views, views, self._network(views)
