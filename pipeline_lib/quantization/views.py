"""Views of calibration images for the tuning of a whole network: other crops, mirrored, mixed two at a time.

A network's float logits can be had for any image, so a view has them of its own: nothing is assumed of what crops,
mirroring and mixup (Zhang et al. 2018) do to a class.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torchvision.transforms import v2

AREA = (0.5, 1.0)  # of a crop, as a share of the image's
MIXED = 0.4  # share of a view's images that are mixed with another
MOST = 16  # views that are kept


def view_count(draws: int, images: int) -> int:
    """Views of each image for that many draws from all of them: as many as are drawn of an image, from 1 to MOST."""
    return min(MOST, max(1, draws // images))


def views(batches: Iterable[Tensor], count: int, seed: int) -> Iterator[Tensor]:
    """The images (n, c, h, w) of all batches as they are, then each of the other `count - 1` views of all of them.

    `seed` determines them, with the sizes of the batches.
    """
    yield from batches
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count - 1):
        for images in batches:
            with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
                torch.default_generator.manual_seed(int(torch.randint(1 << 62, (), generator=generator)))
                yield _view(images)


def _view(images: Tensor) -> Tensor:
    crop = v2.Compose([v2.RandomResizedCrop(images.shape[2:], AREA), v2.RandomHorizontalFlip()])
    cropped = torch.stack([crop(image) for image in images])
    weight = torch.where(torch.rand(len(images)) < MIXED, torch.rand(len(images)), 1).view(-1, 1, 1, 1).to(images)
    mixed = weight * cropped + (1 - weight) * cropped[torch.randperm(len(images))]
    channels_last = images.is_contiguous(memory_format=torch.channels_last)
    return mixed.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
