"""Labelled test images: an idx pair, WebDataset tars, a table of files and classes, or a folder a class."""

import gzip
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.errors import InputError, shown
from pipeline_lib.pictures.folder import is_hidden, pictures_of_folder
from pipeline_lib.pictures.tars import pictures_at, tars_of
from pipeline_lib.prompts.labels import Labels
from pipeline_lib.prompts.text_file import read_table
from pipeline_lib.prompts.vocabulary import ClassName

TABLE = "labels.csv"
COLUMNS = "file,class"
LISTED = 5  # labels that an error names


@dataclass(frozen=True)
class Labelled:
    """A labelled image that is not read yet."""

    key: str
    label: int
    open: Callable[[], Image.Image]

    @property
    def draw(self) -> int:
        """A number from 0 to 2**63 that the key determines: the images with the least are a sample of all."""
        return seed_of("evaluate", 0, self.key)


@dataclass(frozen=True)
class LabelledSet:
    """Labelled images in a fixed order, and what there is of them, in words."""

    images: list[Labelled]
    summary: str

    def chosen(self, fraction: float) -> list[Labelled]:
        """About this share of the images, drawn by their keys, in order."""
        return [image for image in self.images if image.draw < fraction * 2**63]


def sample(images: Sequence[Labelled], count: int) -> list[int]:
    """The positions of `count` of the images, or of all if there are fewer, drawn by their keys."""
    return sorted(range(len(images)), key=lambda position: images[position].draw)[:count]


def labelled_set(folder: Path, classes: Sequence[ClassName]) -> LabelledSet:
    """The labelled images of a folder. What is no picture is skipped and counted in the summary.

    Recognised: `images-idx3-ubyte.gz` with `labels-idx1-ubyte.gz` (MNIST's format); `labels.csv`, with the columns file
    and class, beside pictures; `*.tar` with a picture and a `.cls` a sample (WebDataset); otherwise one folder a class.
    Classes stand there by index, name or synset; an idx pair has indices.

    Raises:
        InputError: the folder is absent or holds no images, a label is none of the classes, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: expected a folder of labelled images, found {'a file' if folder.exists() else 'nothing'}; "
            "`task.labelled` in params.yaml names it"
        )
    if (folder / "images-idx3-ubyte.gz").exists():
        images, skipped = _from_idx(folder, len(classes)), ""
    elif os.path.lexists(folder / TABLE):
        images, skipped = _from_table(folder, classes)
    elif tars_of(folder):
        images, skipped = _from_tars(folder, classes)
    else:
        images, skipped = _from_class_folders(folder, classes)
    if not images:
        raise InputError(
            f"{folder}: no labelled images; expected an idx pair, {TABLE} beside pictures, tars, or a folder a class"
            f"{skipped}"
        )
    present = len({image.label for image in images})
    return LabelledSet(images, f"{present} of {len(classes)} classes, {len(images)} images{skipped}")


def read_idx(path: Path) -> np.ndarray:
    """An array of unsigned bytes in MNIST's gzipped idx format.

    Raises:
        InputError: absent or damaged.
    """
    try:
        data = gzip.decompress(path.read_bytes())
        rank = data[3]
        shape = tuple(int(n) for n in np.frombuffer(data, ">i4", rank, 4))
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzipped idx file ({error}); bring a whole one") from None


def _from_idx(folder: Path, classes: int) -> list[Labelled]:
    images = read_idx(folder / "images-idx3-ubyte.gz")
    labels = read_idx(folder / "labels-idx1-ubyte.gz")
    if others := pictures_of_folder(folder).pictures:
        raise InputError(f"{folder}: expected an idx pair or pictures, found both, such as {others[0].name}")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not all(images.shape[1:]):
        raise InputError(
            f"{folder}: expected images (n, h, w) with labels (n,), found the shapes {images.shape} and {labels.shape}"
        )
    if len(labels) and labels.max() >= classes:
        raise InputError(f"{folder}: label {labels.max()}, expected those of {classes} classes: 0 to {classes - 1}")
    margin = max(0, 32 - images.shape[1]) // 2  # the networks were trained on the 28x28 originals in a black frame
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    return [
        Labelled(f"{number:06d}", int(label), partial(Image.fromarray, pixels))
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True))
    ]


def _from_tars(folder: Path, classes: Sequence[ClassName]) -> tuple[list[Labelled], str]:
    found = pictures_at(folder)
    if loose := [picture.name for picture in found.pictures if not picture.label]:
        raise InputError(f"{_listed(loose)}: without a label; expected a .cls in each sample")
    indices = _indices([picture.label for picture in found.pictures], classes, folder)
    images = [Labelled(picture.key, indices[picture.label], picture.open) for picture in found.pictures]
    return images, found.words_on_skipped


def _from_class_folders(folder: Path, classes: Sequence[ClassName]) -> tuple[list[Labelled], str]:
    """The first folder on the way to a picture names its class; one without pictures does no harm."""
    found = pictures_at(folder)
    if loose := [picture.name for picture in found.pictures if "/" not in picture.key]:
        raise InputError(f"{_listed(loose)}: without a label; expected a folder a class, or {TABLE}")
    folders = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    indices = _indices(folders, classes, folder)
    label_of = {picture.key: picture.key.split("/")[0] for picture in found.pictures}
    images = [Labelled(picture.key, indices[label_of[picture.key]], picture.open) for picture in found.pictures]
    empty = len(set(folders) - set(label_of.values()))
    return images, (f"; {empty} folders without pictures" if empty else "") + found.words_on_skipped


def _from_table(folder: Path, classes: Sequence[ClassName]) -> tuple[list[Labelled], str]:
    """From pictures and a table that has the class of each."""
    path, found = folder / TABLE, pictures_of_folder(folder)
    pictures = {picture.key: picture for picture in found.pictures}
    labels: dict[str, str] = {}
    for where, row in read_table(path, "a table of files and classes", [COLUMNS]):
        file = Path(row["file"]).as_posix()
        if file not in pictures:
            raise InputError(
                f"{where}: expected a picture below {folder}, with / between folders, found {row['file']!r}"
            )
        if file in labels:
            raise InputError(f"{where}: {row['file']!r} has a label already")
        labels[file] = row["class"]
    indices = _indices(list(labels.values()), classes, path)
    images = [Labelled(key, indices[labels[key]], pictures[key].open) for key in pictures if key in labels]
    found.skipped[".csv"] -= 1
    unnamed = len(pictures) - len(images)
    return images, (f"; {unnamed} pictures are not in {TABLE}" if unnamed else "") + found.words_on_skipped


def _indices(texts: Sequence[str], classes: Sequence[ClassName], where: Path) -> dict[str, int]:
    """The class that each label means."""
    labels, found, wrong = Labels(classes), {}, []
    for text in dict.fromkeys(texts):
        try:
            found[text] = labels.index(text)
        except ValueError as error:
            wrong.append(f"{shown(text)} ({error})")
    if wrong:
        raise InputError(f"{where}: expected labels that are {labels.expected}, found {_listed(wrong)}")
    return found


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
