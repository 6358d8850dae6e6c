"""Labelled test images: an idx pair, WebDataset tars, or one folder a class."""

import gzip
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline_lib.artifacts.tars import read_tar
from pipeline_lib.errors import InputError

Labelled = tuple[str, Image.Image, int]  # key, image, class index


def labelled_images(folder: Path) -> Iterator[Labelled]:
    """The labelled images of a folder, in a fixed order, lazily.

    Recognised: `images-idx3-ubyte.gz` with `labels-idx1-ubyte.gz` (MNIST's format); `*.tar` with an image and a `.cls`
    a sample (WebDataset); otherwise one subfolder a class, in the order of their names (as ImageNet's synsets).

    Raises:
        InputError: the folder is absent or holds no images, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: labelled images not found; `task.labelled` in params.yaml names the folder")
    if (folder / "images-idx3-ubyte.gz").exists():
        images = _from_idx(folder)
    elif tars := sorted(folder.glob("*.tar")):
        images = (sample for tar in tars for sample in _from_tar(tar))
    else:
        images = _from_class_folders(folder)
    first = next(images, None)
    if first is None:
        raise InputError(f"{folder}: no labelled images; expected an idx pair, tars, or a folder a class")
    yield first
    yield from images


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
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: not a whole gzipped idx file ({error}); `git checkout -- {path}` restores it"
        ) from None


def _from_idx(folder: Path) -> Iterator[Labelled]:
    images = read_idx(folder / "images-idx3-ubyte.gz")
    labels = read_idx(folder / "labels-idx1-ubyte.gz")
    if len(images) != len(labels):
        raise InputError(f"{folder}: {len(images)} images but {len(labels)} labels")
    margin = max(0, 32 - images.shape[1]) // 2  # the networks were trained on the 28x28 originals in a black frame
    images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        yield f"{number:06d}", Image.fromarray(pixels), int(label)


def _from_tar(path: Path) -> Iterator[Labelled]:
    known = Image.registered_extensions()
    try:
        for key, files in read_tar(path):
            labels = [content for name, content in files.items() if _last_extension(name) == ".cls"]
            images = [content for name, content in files.items() if _last_extension(name) in known]
            if len(images) != 1 or len(labels) != 1:
                raise InputError(f"{path}: sample {key} has {', '.join(files)}; expected one image and one .cls")
            yield key, Image.open(io.BytesIO(images[0])), int(labels[0])
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged tar of labelled images ({error})") from None


def _last_extension(name: str) -> str:
    """`.jpg` for `c.jpg`, and for `JPG`: names here are what follows a sample's key and its dot."""
    return "." + name.rpartition(".")[2].lower()


def _from_class_folders(folder: Path) -> Iterator[Labelled]:
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for label, path in enumerate(classes):
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in (".jpeg", ".jpg", ".png"):
                yield f"{path.name}/{file.name}", Image.open(file), label
