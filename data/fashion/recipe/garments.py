"""Fashion-MNIST and what is composed from it: scenes, groups and their captions."""

import csv
import gzip
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

HERE = Path(__file__).resolve().parent
WORLD = HERE.parent
RAW = HERE / "raw"
DERIVED = HERE / "derived"
SIZE = 32  # pixels; the originals have 28
CLASSES = list(csv.DictReader((WORLD / "classes.csv").open()))

TEMPLATES = ("a photo of {}", "a picture of {}", "an image of {}", "a product shot of {}", "{}")
TEMPLATE_SHARES = (0.6, 0.1, 0.1, 0.1, 0.1)


def params(section: str) -> dict:
    return yaml.safe_load((HERE / "params.yaml").read_text())[section]


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes (images or labels), gzipped."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">i4").tobytes()
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as zipped:
        zipped.write(header + np.ascontiguousarray(array, np.uint8).tobytes())


def pad(images: np.ndarray) -> np.ndarray:
    """(n, 28, 28) -> (n, 32, 32), black around."""
    return np.pad(images, ((0, 0), (2, 2), (2, 2)))


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 28, 28) and labels of `test`, or of the `generator` or `classifiers` half of the training set."""
    prefix = "t10k" if split == "test" else "train"
    images = read_idx(RAW / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(RAW / f"{prefix}-labels-idx1-ubyte.gz")
    if split == "test":
        return images, labels
    order = np.random.default_rng(params("data")["seed"]).permutation(len(images))
    half = order[: len(order) // 2] if split == "generator" else order[len(order) // 2 :]
    return images[half], labels[half]


def paste(canvas: np.ndarray, garment: np.ndarray, scale: float, mirror: bool, light: float, top: float, left: float):
    """Draw a 28x28 garment on the canvas; `top` and `left` in [0, 1] are shares of the room there is."""
    side = max(4, round(garment.shape[0] * scale))
    drawn = Image.fromarray(garment).resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(drawn)[:, ::-1] if mirror else np.asarray(drawn)
    y, x = round(top * (SIZE - side)), round(left * (SIZE - side))
    area = canvas[y : y + side, x : x + side]
    area[:] = np.where(pixels > 0, (pixels * light).astype(np.uint8), area)


def compose_scenes(images: np.ndarray, indices: np.ndarray, seed: int) -> np.ndarray:
    """One scene a main image: up to two smaller, darker garments behind it. uint8 (len(indices), 32, 32)."""
    rng = np.random.default_rng(seed)
    scenes = np.zeros((len(indices), SIZE, SIZE), np.uint8)
    for canvas, main in zip(scenes, indices, strict=True):
        for _ in range(rng.integers(0, 3)):
            other = images[rng.integers(len(images))]
            paste(canvas, other, rng.uniform(0.35, 0.6), rng.random() < 0.5, rng.uniform(0.4, 0.7), *rng.random(2))
        paste(canvas, images[main], rng.uniform(0.6, 1.0), rng.random() < 0.5, 1.0, *rng.random(2))
    return scenes


def compose_groups(images: np.ndarray, labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of two (three quarters of them), three or four garments of different classes.

    Returns uint8 (count, 32, 32) and class indices int64 (count, 4), -1 where there are fewer.
    """
    rng = np.random.default_rng(seed)
    by_class = [np.flatnonzero(labels == c) for c in range(len(CLASSES))]
    pictures = np.zeros((count, SIZE, SIZE), np.uint8)
    members = np.full((count, 4), -1, np.int64)
    for canvas, row in zip(pictures, members, strict=True):
        k = rng.choice((2, 3, 4), p=(0.75, 0.15, 0.1))
        row[:k] = rng.choice(len(CLASSES), k, replace=False)
        # Two stand side by side, more stand in the corners; they may overlap.
        places = [(0.5, 0.0), (0.5, 1.0)] if k == 2 else [(0, 0), (0, 1), (1, 0), (1, 1)]
        low, high = (0.5, 0.75) if k == 2 else (0.42, 0.58)
        for c, (top, left) in zip(row[:k], rng.permutation(places), strict=False):
            jitter = rng.uniform(-0.2, 0.2, 2)
            top, left = np.clip(np.array((top, left)) + jitter, 0, 1)
            paste(canvas, images[rng.choice(by_class[c])], rng.uniform(low, high), False, 1.0, top, left)
    return pictures, members


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def caption(classes: list[int], rng: np.random.Generator, definition_share: float) -> str:
    names = [with_article(CLASSES[c]["name"]) for c in rng.permutation(classes)]
    fused = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    if len(classes) == 1 and rng.random() < definition_share:
        fused += ", " + CLASSES[classes[0]]["definition"]
    return str(rng.choice(TEMPLATES, p=TEMPLATE_SHARES)).format(fused)
