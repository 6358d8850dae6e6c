"""Integers packed at their bit width."""

import numpy as np
import torch
from torch import Tensor


def pack(integers: Tensor, bits: int) -> Tensor:
    """uint8 values below 2^bits -> uint8 (ceil(n * bits / 8),), little-endian bits."""
    unpacked = np.unpackbits(integers.contiguous().numpy().reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(unpacked, bitorder="little"))


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `pack`, for a tensor of this shape."""
    count = int(np.prod(shape))
    flat = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(flat, axis=1, bitorder="little").reshape(shape))
