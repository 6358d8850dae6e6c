"""Pictures on the page: samples of the calibration sets, and labelled images that quantization turned."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pipeline_lib.artifacts.tables import read_table
from pipeline_lib.report.leaderboard import Artifact, read_artifact
from pipeline_lib.report.tables import FLIPPED_COLUMNS, SAMPLE_COLUMNS, read_pixels

THUMBNAIL = 96  # pixels; larger samples are shrunk to this


class PreviewSummary(Artifact):
    """summary.json: how many images a calibration set has, and how many were looked at and left out, by reason."""

    images: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Picture:
    """A sample: a URL that holds the image itself, and what is known of the sample; empty what is not."""

    url: str
    prompt: str
    scores: dict[str, float]
    reason: str  # why it was dropped


@dataclass(frozen=True)
class Flip:
    """A labelled image that the float network classifies rightly and the reconstructed one does not: class names."""

    url: str
    label: str
    predicted: str  # by the float network: the label
    reconstructed: str


@dataclass(frozen=True)
class Grid:
    """Samples of one source, drawn at even distances from the preview of its calibration set."""

    source: str
    size: str
    images: int
    left_out: dict[str, int]  # by reason
    kept: list[Picture]
    dropped: list[Picture]


def read_grid(folder: Path, source: str, count: int) -> Grid:
    """Up to `count` images of a calibration set, and as many that were dropped, from its preview.

    Raises:
        InputError: a file is absent or damaged.
    """
    summary = read_artifact(PreviewSummary, folder / "summary.json")
    rows = read_table(folder / "samples.csv", SAMPLE_COLUMNS, tuple(SAMPLE_COLUMNS))
    kept, dropped = rows[rows["kept"] == "True"], rows[rows["kept"] != "True"]
    images = read_pixels(folder / "images.npy")
    return Grid(
        source=source,
        size=f"{images.shape[2]} by {images.shape[1]}",
        images=summary.images,
        left_out=summary.left_out,
        kept=_pictures(images, kept, count),
        dropped=_pictures(read_pixels(folder / "dropped.npy"), dropped, count) if len(dropped) else [],
    )


def read_flips(folder: Path, names: list[str]) -> list[Flip]:
    """The flipped images of a cell's evaluation; `names` are those of the classes, by index.

    Raises:
        InputError: a file is absent or damaged.
    """
    rows = read_table(folder / "flipped.csv", FLIPPED_COLUMNS, ("key",))
    images = read_pixels(folder / "flipped.npy")
    classes = rows[FLIPPED_COLUMNS[1:]].to_numpy(int)
    return [Flip(_data_url(image), *(names[c] for c in three)) for image, three in zip(images, classes, strict=True)]


def _pictures(images: np.ndarray, rows: pd.DataFrame, count: int) -> list[Picture]:
    """Up to `count` of the images (n, h, w, 3), with what their rows say of them."""
    pictures = []
    for i in _evenly_spread(len(images), count):
        row = rows.iloc[i]
        pictures.append(Picture(_data_url(images[i]), row["prompt"], json.loads(row["scores"]), row["reason"]))
    return pictures


def _evenly_spread(total: int, count: int) -> list[int]:
    """Up to `count` positions among `total`, evenly spread, first and last included."""
    positions: list[int] = np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()
    return positions


def _data_url(pixels: np.ndarray) -> str:
    """An image uint8 (h, w, 3) as a URL that holds it, as a PNG of at most THUMBNAIL pixels a side."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
