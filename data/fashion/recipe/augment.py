"""The usual augmentation of classifier training, on whole batches: random resized crop, flip, resize."""

import torch
import torch.nn.functional as F


def random_resized_crop(images: torch.Tensor, size: int, scale: tuple[float, float]) -> torch.Tensor:
    """uint8 (n, h, w) -> float32 (n, 3, size, size) in [-1, 1]; each picture its own crop, half of them mirrored."""
    n = len(images)
    area = torch.empty(n).uniform_(*scale)
    ratio = torch.empty(n).uniform_(-0.2877, 0.2877).exp()  # 3/4 to 4/3, log-uniform
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2] = (2 * torch.rand(n) - 1) * (1 - width)
    theta[:, 1, 2] = (2 * torch.rand(n) - 1) * (1 - height)
    grid = F.affine_grid(theta, (n, 1, size, size), align_corners=False)
    pixels = images.float().unsqueeze(1) / 127.5 - 1
    cropped = F.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return cropped.clamp(-1, 1).expand(-1, 3, -1, -1)


def resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (n, h, w) -> float32 (n, 3, size, size) in [-1, 1], as timm's evaluation transform does it."""
    pixels = images.unsqueeze(1)
    if images.shape[-1] != size:
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True)
    return (pixels.float() / 127.5 - 1).expand(-1, 3, -1, -1)
