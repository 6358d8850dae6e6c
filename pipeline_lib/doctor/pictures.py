"""Pictures that a run will read: that there are enough, and that they can be decoded."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline_lib.doctor.findings import Finding
from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import Labelled, LabelledSet, sample
from pipeline_lib.evaluation.predict import NONE_CHOSEN
from pipeline_lib.pictures.picture import drawn
from pipeline_lib.pictures.tars import pictures_at

DECODED = 16  # pictures that are tried


def examine_labelled(
    folder: Path, read: Callable[[Path], LabelledSet], fraction: float, chosen: list[Labelled]
) -> Iterator[Finding]:
    """Every label, and some of the images; `chosen` gets those that a network is judged on.

    Raises:
        InputError: a label is no class, an image is damaged, or none is chosen.
    """
    labelled = read(folder)
    chosen += labelled.chosen(fraction)
    if not chosen:
        raise InputError(NONE_CHOSEN)
    for position in sample(chosen, DECODED):
        chosen[position].open()
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
