"""Pictures that a run will read: that there are enough, and that they can be decoded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_lib.doctor.findings import Finding
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import LabelledSet, sample
from pipeline_lib.pictures.picture import drawn
from pipeline_lib.pictures.tars import pictures_at

DECODED = 16  # pictures that are tried


def examine_labelled(folder: Path, read: Callable[[Path], LabelledSet], found: list[LabelledSet]) -> Iterator[Finding]:
    """Every label, and some of the images; `found` gets the set.

    Raises:
        InputError: a label is no class, or an image is damaged.
    """
    labelled = read(folder)
    for position in sample(labelled.images, DECODED):
        labelled.images[position].open()
    found.append(labelled)
    yield Finding("OK", "labelled", f"{folder}: {labelled.summary}")


def examine_pictures(about: str, path: Path, count: int) -> Iterator[Finding]:
    """Calibration images that a user brings; `about` is what they are called.

    Raises:
        InputError: there are fewer than `count`, or one is damaged.
    """
    found = pictures_at(path)
    if len(found.pictures) < count:
        raise InputError(
            f"{path}: {len(found.pictures)} pictures, expected the {count} of `calibrate.count` in params.yaml"
            f"{found.words_on_skipped}"
        )
    for picture in drawn(found.pictures, "pictures", 0)[:DECODED]:
        picture.open()
    yield Finding("OK", about, f"{path}: {len(found.pictures)} pictures{found.words_on_skipped}")
