"""How the compiled operators see tensors: dense, in memory order."""

import torch
from torch import Tensor


def dense(x: Tensor) -> Tensor:
    """The tensor itself if it fills its memory without gaps or overlaps, else a copy that does."""
    if x.is_contiguous() or x.stride() == torch.empty_like(x).stride():  # which has the strides of a dense tensor
        return x
    return torch.empty_like(x).copy_(x)


def laid_out_as(other: Tensor, x: Tensor) -> Tensor:
    """The tensor itself if it lies in memory as x does, else a copy that does."""
    if other.stride() == x.stride():
        return other
    return torch.empty_strided(x.shape, x.stride(), dtype=other.dtype, device=other.device).copy_(other)


def runs_of(x: Tensor, axis: int | None) -> tuple[int, int, int]:
    """(runs, channels, inner) of a dense tensor: run r is `inner` consecutive elements of channel r % channels."""
    if axis is None or x.shape[axis] == 1:
        return 1, 1, x.numel()
    inner = x.stride(axis)
    return x.numel() // inner, x.shape[axis], inner
