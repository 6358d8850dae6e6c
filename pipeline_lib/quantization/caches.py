"""What units read and write, a row for each image: in the memory of the device, in host memory, or in a file.

Where a cache lies does not change its values. What fits into a budget lies in the memory of the device; beside a GPU as
much again lies in pinned memory of the host; the rest lies in a file of the work directory.
"""

import mmap
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from pipeline_lib.errors import InputError

GIB = 1 << 30


@dataclass(frozen=True, eq=False)
class Cache:
    """Tensors of one shape, one for each image."""

    rows: Tensor  # (images, elements), float32
    shape: tuple[int, ...]  # of an image's tensor
    strides: tuple[int, ...]  # of an image's tensor
    device: torch.device  # where the tensors are wanted
    file: mmap.mmap | None = None  # that the rows lie in, if they do

    def __len__(self) -> int:
        return len(self.rows)

    def shaped(self, rows: Tensor) -> Tensor:
        """Rows, (n, elements), as a batch of tensors, (n, *shape)."""
        return rows.as_strided((len(rows), *self.shape), (rows.stride(0), *self.strides))

    def batches(self, size: int) -> Iterator[Tensor]:
        """The tensors of all images, in order, in batches on the device."""
        for part in self.rows.split(size):
            yield self.shaped(part.to(self.device))
            self.release()

    def split(self, held_out: int) -> tuple["Cache", "Cache"]:
        """All images but the last `held_out`, and those; both share the memory of this cache."""
        return replace(self, rows=self.rows[:-held_out]), replace(self, rows=self.rows[-held_out:])

    def first(self, count: int) -> "Cache":
        """The first images."""
        return replace(self, rows=self.rows[:count])

    def release(self) -> None:
        """Let the system drop pages of the file from memory; it reads them again when they are needed."""
        if self.file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class UnitData:
    """What a unit is reconstructed on."""

    quantized_input: Cache  # what it reads where all before it is quantized
    float_input: Cache  # what it reads in the float network
    target: Cache  # what it writes in the float network

    @property
    def caches(self) -> tuple[Cache, Cache, Cache]:
        """Quantized input, float input and target."""
        return self.quantized_input, self.float_input, self.target

    def split(self, held_out: int) -> tuple["UnitData", "UnitData"]:
        """The data of all images but the last `held_out`, and the data of those."""
        parts = [cache.split(held_out) for cache in self.caches]
        return UnitData(*(first for first, _ in parts)), UnitData(*(last for _, last in parts))

    def first(self, count: int) -> "UnitData":
        """The first images."""
        return UnitData(*(cache.first(count) for cache in self.caches))


class Caches:
    """Places caches within a budget."""

    def __init__(self, device: torch.device, gib: float, folder: Path) -> None:
        """`gib`: budget of the device's memory, and with a GPU of the host's too. `folder`: for files."""
        self._device, self._folder, self._budget = device, folder, gib * GIB
        self._levels = ("device", "pinned") if device.type == "cuda" else ("device",)
        self._live: dict[Cache, str] = {}  # caches in use: where each lies, `device`, `pinned` or `file`

    def store(self, images: int, batches: Iterable[Tensor]) -> Cache:
        """A cache of these batches, which have `images` images in all.

        Raises:
            InputError: the disk has no room.
        """
        stream = iter(batches)
        first = next(stream)
        cache = self._allocate(images, first)
        begin = 0
        for batch in chain([first], stream):
            cache.shaped(cache.rows[begin : begin + len(batch)]).copy_(batch)
            cache.release()
            begin += len(batch)
        return cache

    def keep(self, caches: Collection[Cache]) -> None:
        """Count only these against the budget from now on; the others must not be used any more."""
        self._live = {cache: level for cache, level in self._live.items() if cache in caches}

    def _allocate(self, images: int, batch: Tensor) -> Cache:
        """An empty cache for images such as those of the batch."""
        dense = batch.contiguous(memory_format=_memory_format(batch))[0]
        size = 4 * images * dense.numel()
        level = next((level for level in self._levels if self._used(level) + size <= self._budget), "file")
        file = None
        if level == "file":
            file = self._file(size)
            rows = torch.frombuffer(file, dtype=torch.float32).view(images, -1)
        else:
            device = self._device if level == "device" else None
            rows = torch.empty(images, dense.numel(), device=device, pin_memory=level == "pinned")
        cache = Cache(rows, tuple(dense.shape), dense.stride(), self._device, file)
        self._live[cache] = level
        return cache

    def _used(self, level: str) -> int:
        return sum(4 * cache.rows.numel() for cache, its_level in self._live.items() if its_level == level)

    def _file(self, size: int) -> mmap.mmap:
        """A file without a name, which the system removes when no process has it open any more."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would crash the process later
            except OSError as error:
                raise InputError(
                    f"{self._folder}: {size / GIB:.1f} GiB for what a unit reads and writes: {error.strerror}; free "
                    "space there, or raise `runtime.cache_gib` in params.yaml if there is memory"
                ) from None
            return mmap.mmap(file.fileno(), size)


def choose_batches(iterations: int, batch_size: int, images: int, seed: int) -> Tensor:
    """Indices of the images of each iteration, (iterations, batch size), drawn with replacement.

    A batch is not larger than the number of images.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(images, (iterations, min(batch_size, images)), generator=generator)


class Feed:
    """Batches drawn from caches, always in the same tensors on the device, where a CUDA graph reads them."""

    def __init__(self, caches: Collection[Cache], choices: Tensor) -> None:
        """`choices`: the images of each iteration, (iterations, batch size), on the CPU."""
        self._choices = choices
        self._transfers: list[tuple[Cache, Tensor, list[Tensor]]] = []  # cache, rows on the device, buffers between
        self._batch: list[Tensor] = []
        self._sent: list[torch.cuda.Event] = []  # one for each of the two buffers
        for cache in caches:
            rows = torch.empty(choices.shape[1], cache.rows.shape[1], device=cache.device)
            buffers = []
            if cache.rows.device != cache.device:
                buffers = [torch.empty(rows.shape, pin_memory=True) for _ in range(2)]
                self._sent = [torch.cuda.Event(), torch.cuda.Event()]
            self._transfers.append((cache, rows, buffers))
            self._batch.append(cache.shaped(rows))
        self._choices_on_device = choices.to(next(iter(caches)).device)

    def batch(self) -> tuple[Tensor, ...]:
        """A tensor for each cache."""
        return tuple(self._batch)

    def load(self, iteration: int) -> None:
        """Fill the batch; from the host through two pinned buffers in turn, while the device computes."""
        turn = iteration % 2
        if self._sent:
            self._sent[turn].synchronize()  # the buffer is free when what it held two iterations ago has arrived
        for cache, rows, buffers in self._transfers:
            if buffers:
                torch.index_select(cache.rows, 0, self._choices[iteration], out=buffers[turn])
                rows.copy_(buffers[turn], non_blocking=True)
            else:
                torch.index_select(cache.rows, 0, self._choices_on_device[iteration], out=rows)
            cache.release()
        if self._sent:
            self._sent[turn].record()


def _memory_format(batch: Tensor) -> torch.memory_format:
    channels_last = batch.dim() == 4 and batch.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
