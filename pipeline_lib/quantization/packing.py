"""Integers packed at their bit width."""

import numpy as np
import torch
from torch import Tensor


def pack(integers: Tensor, bits: int) -> Tensor:
    """Pack n integers below 2^bits, uint8 of any shape -> uint8 (ceil(n * bits / 8),), lowest bits first."""
    unpacked = np.unpackbits(integers.contiguous().numpy().reshape(-1, 1), axis=1, count=bits, bitorder="little")
    return torch.from_numpy(np.packbits(unpacked, bitorder="little"))


def unpack(packed: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The integers, uint8 of this shape, that `pack` packed."""
    count = int(np.prod(shape))
    flat = np.unpackbits(packed.numpy(), count=count * bits, bitorder="little").reshape(count, bits)
    return torch.from_numpy(np.packbits(flat, axis=1, bitorder="little").reshape(shape))
