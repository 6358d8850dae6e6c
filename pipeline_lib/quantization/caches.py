"""What units read and write, a row an image: in the memory of the device, in host memory, or in a file.

The values are the same everywhere; a budget decides. A GPU has as much of the host's memory, pinned, as of its own;
what neither holds lies in a file of the work directory.
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
    """Tensors of one shape, one an image."""

    rows: Tensor  # (images, elements), float32
    shape: tuple[int, ...]  # of an image's tensor
    strides: tuple[int, ...]
    device: torch.device  # where the tensors are wanted
    file: mmap.mmap | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def shaped(self, rows: Tensor) -> Tensor:
        """Rows as a batch of tensors."""
        return rows.as_strided((len(rows), *self.shape), (rows.stride(0), *self.strides))

    def batches(self, size: int) -> Iterator[Tensor]:
        """All of it in order, on the device."""
        for part in self.rows.split(size):
            yield self.shaped(part.to(self.device))
            self.release()

    def split(self, held_out: int) -> tuple["Cache", "Cache"]:
        """All but the last `held_out` images, and those."""
        return replace(self, rows=self.rows[:-held_out]), replace(self, rows=self.rows[-held_out:])

    def first(self, count: int) -> "Cache":
        """The first images."""
        return replace(self, rows=self.rows[:count])

    def release(self) -> None:
        """Give back the memory of pages that were read or written; the file has them."""
        if self.file is not None and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class UnitData:
    """What a unit sees: its input behind the quantized prefix and behind the float one, and its float output."""

    quantized_input: Cache
    float_input: Cache
    target: Cache

    @property
    def caches(self) -> tuple[Cache, Cache, Cache]:
        """The three."""
        return self.quantized_input, self.float_input, self.target

    def split(self, held_out: int) -> tuple["UnitData", "UnitData"]:
        """All but the last `held_out` images, and those."""
        kept, held = zip(*(cache.split(held_out) for cache in self.caches), strict=True)
        return UnitData(*kept), UnitData(*held)

    def first(self, count: int) -> "UnitData":
        """The first images."""
        return UnitData(*(cache.first(count) for cache in self.caches))


class Caches:
    """Places caches within a budget."""

    def __init__(self, device: torch.device, gib: float, folder: Path) -> None:
        """`gib`: of the device's memory, and on a GPU of the host's too. `folder`: for files."""
        self._device, self._folder, self._budget = device, folder, gib * GIB
        self._levels = ("device", "pinned") if device.type == "cuda" else ("device",)
        self._live: dict[Cache, str] = {}  # and the level of each

    def store(self, images: int, batches: Iterable[Tensor]) -> Cache:
        """A cache of these batches, which hold so many images together.

        Raises:
            InputError: no room on disk.
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
        """Count only these as alive from now on; the others must not be used any more."""
        self._live = {cache: level for cache, level in self._live.items() if cache in caches}

    def _allocate(self, images: int, like: Tensor) -> Cache:
        dense = like.contiguous(memory_format=_memory_format(like))[0]
        size = 4 * images * dense.numel()
        level = next((level for level in self._levels if self._used(level) + size <= self._budget), "file")
        file = None
        if level == "file":
            file = self._file(size)
            rows = torch.frombuffer(file, dtype=torch.float32).view(images, -1)
        else:
            place = self._device if level == "device" else None
            rows = torch.empty(images, dense.numel(), device=place, pin_memory=level == "pinned")
        cache = Cache(rows, tuple(dense.shape), dense.stride(), self._device, file)
        self._live[cache] = level
        return cache

    def _used(self, level: str) -> int:
        return sum(4 * cache.rows.numel() for cache, at in self._live.items() if at == level)

    def _file(self, size: int) -> mmap.mmap:
        """A file without a name: it goes with the last who uses it, even if killed."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and a crash later
            except OSError as error:
                raise InputError(
                    f"{self._folder}: {size / GIB:.1f} GiB for what a unit reads and writes: {error.strerror}; free "
                    "space there, or raise `runtime.cache_gib` in params.yaml if there is memory"
                ) from None
            return mmap.mmap(file.fileno(), size)


def choose_batches(iterations: int, batch_size: int, images: int, seed: int) -> Tensor:
    """What `Feed` takes: the images of each iteration, drawn with replacement; no more at once than there are."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(images, (iterations, min(batch_size, images)), generator=generator)


class Feed:
    """Batches of caches, on the device, always in the same tensors: a CUDA graph reads them there."""

    def __init__(self, caches: Collection[Cache], choices: Tensor) -> None:
        """choices: (iterations, batch size), on the CPU: the images of each iteration."""
        self._choices = choices
        self._sources: list[tuple[Cache, Tensor, list[Tensor]]] = []
        self._batch: list[Tensor] = []
        for cache in caches:
            rows = torch.empty(choices.shape[1], cache.rows.shape[1], device=cache.device)
            elsewhere = cache.rows.device != cache.device
            staging = [torch.empty(rows.shape, pin_memory=True) for _ in range(2 * elsewhere)]
            self._sources.append((cache, rows, staging))
            self._batch.append(cache.shaped(rows))
        self._on_device = choices.to(next(iter(caches)).device)
        self._sent = [torch.cuda.Event() for _ in range(2 * any(staging for _, _, staging in self._sources))]

    def batch(self) -> tuple[Tensor, ...]:
        """A tensor a cache."""
        return tuple(self._batch)

    def load(self, iteration: int) -> None:
        """Fill the batch; from the host through two pinned buffers in turn, while the device works on."""
        slot = iteration % 2
        if self._sent:
            self._sent[slot].synchronize()  # of two iterations ago
        for cache, rows, staging in self._sources:
            if staging:
                torch.index_select(cache.rows, 0, self._choices[iteration], out=staging[slot])
                rows.copy_(staging[slot], non_blocking=True)
            else:
                torch.index_select(cache.rows, 0, self._on_device[iteration], out=rows)
            cache.release()
        if self._sent:
            self._sent[slot].record()


def _memory_format(batch: Tensor) -> torch.memory_format:
    channels_last = batch.dim() == 4 and batch.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
