"""The finished part of a network, and what the unit behind it sees."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.anatomy import Group
from pipeline_lib.quantization.caches import Caches, UnitData
from pipeline_lib.quantization.capture import unit_inputs, unit_outputs
from pipeline_lib.quantization.losses import BATCH, Loss, Unit, loss_of
from pipeline_lib.quantization.prepare import Prepared, rounded_to_nearest


class Batches:
    """The images of a calibration set, normalised a batch at a time whenever they are asked for."""

    def __init__(self, path: Path, images: range, normalise: Normaliser) -> None:
        self._path, self._images, self._normalise = path, images, normalise

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        for begin in self._images[::BATCH]:
            images = np.load(self._path, mmap_mode="r")  # mapped anew, so that no more than a batch is in memory
            yield self._normalise(images[begin : min(begin + BATCH, self._images.stop)])

    def split(self, held_out: int) -> tuple["Batches", "Batches"]:
        """All but the last `held_out` images, and those."""
        kept, held = self._images[:-held_out], self._images[-held_out:]
        return Batches(self._path, kept, self._normalise), Batches(self._path, held, self._normalise)

    def first(self, count: int) -> "Batches":
        """The first images alone."""
        return Batches(self._path, self._images[:count], self._normalise)


def joined(network: nn.Module, group: Group) -> nn.Module:
    """The blocks of a unit as one module."""
    blocks = [network.get_submodule(name) for name in group]
    return blocks[0] if len(blocks) == 1 else nn.Sequential(*blocks)


class Prefix:
    """Goes through the units in order. What one saw becomes what the next sees, if that reads what it writes."""

    def __init__(
        self, prepared: Prepared, groups: Sequence[Group], batches: Batches, held_out: int, caches: Caches
    ) -> None:
        """Begin before the first unit.

        Args:
            prepared: float and quantized network, on the device; the latter changes as its units are finished.
            groups: the units.
            batches: images of the calibration set.
            held_out: how many of them, the last, nothing is learned from.
            caches: where what a unit reads and writes is kept.
        """
        self._reference, self._quantized, self._groups = prepared.reference, prepared.quantized, groups
        self._chained = prepared.anatomy.chained
        self._batches, self._held_out, self._caches = batches, held_out, caches
        self._previous: tuple[int, UnitData] | None = None  # number of the unit before, and what it saw

    def unit_data(self, number: int) -> UnitData:
        """What unit `number` sees, now that all before it are finished.

        No more than four caches are alive at a time: those of the unit before end here.
        """
        group, images = self._groups[number], len(self._batches)
        previous, self._previous = self._previous, None
        if previous is not None and previous[0] == number - 1 and group[0] in self._chained:
            seen = previous[1]
            self._caches.keep([seen.quantized_input, seen.target])
            before = joined(self._quantized, self._groups[number - 1])
            outputs = unit_outputs(before, seen.quantized_input.batches(BATCH))
            quantized_input, float_input = self._caches.store(images, outputs), seen.target
            del seen, outputs
        else:
            previous = None
            self._caches.keep([])
            quantized_input, float_input = (
                self._caches.store(images, unit_inputs(network, group[0], self._batches))
                for network in (self._quantized, self._reference)
            )
        del previous
        self._caches.keep([quantized_input, float_input])
        outputs = unit_outputs(joined(self._reference, group), float_input.batches(BATCH))
        data = UnitData(quantized_input, float_input, self._caches.store(images, outputs))
        self._previous = number, data
        return data

    def loss(self, number: int, data: UnitData, method: Method) -> Loss:
        """The loss of unit `number`, which sees this data."""
        group = self._groups[number]
        unit = Unit(
            data=data.split(self._held_out)[0],
            nearest=lambda: rounded_to_nearest(joined(self._quantized, group)),
            end=group[-1],
            reference=self._reference,
            images=self._batches.split(self._held_out)[0],
            classes=lambda: self._classes,
            last=number + 1 == len(self._groups),
        )
        return loss_of(unit, method)

    def whole(self) -> UnitData:
        """What the network sees, and its float logits."""
        self._previous = None
        self._caches.keep([])
        images = len(self._batches)
        pictures = self._caches.store(images, self._batches)
        logits = self._caches.store(images, unit_outputs(self._reference, self._batches))
        return UnitData(pictures, pictures, logits)

    @cached_property
    def _classes(self) -> Tensor:
        """Logits of the float network, (n, classes), for the images that are not held out."""
        trained, _ = self._batches.split(self._held_out)
        return torch.cat(list(unit_outputs(self._reference, trained)))
