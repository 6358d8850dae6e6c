"""The calibration set of a replicate."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pipeline_lib.artifacts.shards import Sample
from pipeline_lib.calibration import sources
from pipeline_lib.calibration.assemble import assemble
from pipeline_lib.calibration.distil import distil
from pipeline_lib.calibration.treat import treat
from pipeline_lib.errors import InputError
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.models.preprocessing import Pixels, resize_and_crop
from pipeline_lib.params.distil import Distil
from pipeline_lib.params.study import StudyCells
from pipeline_lib.params.treatments import Treatment


@dataclass(frozen=True)
class StudySource:
    """Where the calibration images of cells come from, a recipe, perhaps treated, or a baseline; and the classifier."""

    name: str  # of a recipe or a baseline
    images: Literal["rendered", "noise", "distilled", "real"]  # whatever its name
    treatment: Treatment | None
    distil: Distil | None  # of distilled images
    synthetic: Path  # folder of rendered datasets
    real: Path
    classifier: Path

    @property
    def read_from(self) -> list[Path]:
        """The images that a set is drawn from; none of those that are made here."""
        return {"rendered": [self.synthetic / self.name], "real": [self.real]}.get(self.images, [])

    def write(self, replicate: int, cells: StudyCells, device: torch.device, out: Path) -> None:
        """Write the replicate's calibration set into `out`, as the stages before reconstruction do.

        Each replicate has its own block of the rendered images, and its own seed for noise and distilled images. Real
        images are few: each replicate draws from all of them, so that replicates share some.

        Raises:
            InputError: too few images.
        """
        data_config = resolve_data_config(self.classifier)
        if self.distil is not None:
            distil(self.classifier, self.distil, cells.images, replicate, device, out)
        elif self.treatment is not None:
            treat(self._block(replicate, cells), self.treatment, self.classifier, cells.images, replicate, device, out)
        else:
            samples: Iterable[Sample]
            if self.images == "noise":
                samples = sources.noise(cells.images, replicate, data_config)
            elif self.images == "real":
                samples = sources.pictures(self.real, replicate)
            else:
                samples = self._block(replicate, cells)
            assemble(samples, cells.images, data_config, out)

    def _block(self, replicate: int, cells: StudyCells) -> Iterator[Sample]:
        begin = replicate * cells.block
        return islice(sources.synthetic(self.synthetic / self.name), begin, begin + cells.block)


def judge_images(dataset: Path, cells: StudyCells, classifier: Path) -> Pixels:
    """The images of a rendered dataset that come after the blocks of all replicates, uint8 (n, h, w, 3).

    Raises:
        InputError: the dataset has too few.
    """
    begin = cells.replicates * cells.block
    transform = resize_and_crop(resolve_data_config(classifier))
    samples = islice(sources.synthetic(dataset), begin, begin + cells.judge_images)  # their classes are balanced
    images = [transform(sample.image) for sample in samples]
    if len(images) < cells.judge_images:
        raise InputError(
            f"{dataset}: the study needs {begin + cells.judge_images} images of a judge: {cells.replicates} blocks of "
            f"{cells.block} and {cells.judge_images} more; raise `prompts.{dataset.name}.count` in params.yaml"
        )
    return np.stack(images)
