"""The report: one HTML file that needs no other, and leaderboard.csv beside it."""

import base64
import io
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.report import figures
from pipeline_lib.report.leaderboard import (
    Artifact,
    Board,
    Setting,
    describe,
    leaderboard,
    read_artifact,
    read_board,
    require,
    summarise,
)

TEMPLATE = Path(__file__).with_name("template.html")
THUMBNAIL = 96  # pixels; larger samples are shrunk to this
BLOCK_COLUMNS = ["unit", "loss_before", "loss_after", "held_out_before", "held_out_after"]
GAP_COLUMNS = ["unit", "calibration", "labelled"]


SAMPLE_COLUMNS = ["key", "prompt"]
TEXT = ("unit", "key", "prompt")


class Left(Artifact):
    """How many images a calibration set has, and how many were looked at and left out, by reason."""

    images: int
    left_out: dict[str, int]


class Weight(Artifact):
    """Of one layer."""

    bits: int
    shape: list[int]
    granularity: str


class Activation(Artifact):
    """Of one quantizer."""

    bits: int
    granularity: str
    kind: str = "uniform"


class BitMap(Artifact):
    """quantization.json, as far as it is shown."""

    weights: dict[str, Weight]
    activations: dict[str, Activation]
    simulation_only: bool

    @property
    def size(self) -> int:
        """Number of quantized weights."""
        return sum(math.prod(weight.shape) for weight in self.weights.values())

    @property
    def mean_bits(self) -> float:
        """Bits a weight."""
        return sum(weight.bits * math.prod(weight.shape) for weight in self.weights.values()) / self.size


@dataclass(frozen=True)
class Picture:
    """A sample: its URL, which holds the image itself, and its prompt, empty where there is none."""

    url: str
    prompt: str


@dataclass(frozen=True)
class Grid:
    """Samples of one source, drawn at even distances from the preview of its calibration set."""

    source: str
    size: str
    images: int
    left_out: dict[str, int]  # by reason
    pictures: list[Picture]


@dataclass(frozen=True)
class Part:
    """What the page shows of one setting."""

    setting: Setting
    finding: str
    best: list[str]
    accuracy: str
    losses: dict[str, str]  # chart by source
    gaps: dict[str, pd.DataFrame]  # by source
    bits: BitMap

    def mean_ratio(self, source: str) -> float:
        """Geometric mean over the units of loss on labelled images / on calibration images."""
        gap = self.gaps[source]
        gap = gap[(gap.calibration > 0) & (gap.labelled > 0)]
        return math.exp(float(np.log(gap.labelled / gap.calibration).mean()))


def write_report(data: Path, axes: Axes, params: Report, out: Path) -> dict[str, Any]:
    """Write index.html and leaderboard.csv into `out` from what the stages left below `data`.

    Returns facts for the provenance.

    Raises:
        InputError: an artifact that the axes call for is absent or damaged.
    """
    board = read_board(data / "evaluation", axes)
    parts = [_part(data, board, setting) for setting in board.settings]
    grids = [_grid(data / "preview" / f"{source}-{axes.models[0]}", source, params.samples) for source in axes.sources]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        board=board,
        axes=axes,
        parts=parts,
        grids=grids,
        summary=summarise(board),
        labelled_loss=_labelled_loss(board, parts),
        sizes=" and ".join(dict.fromkeys(grid.size for grid in grids)),
        simulated=list(dict.fromkeys(part.setting.model for part in parts if part.bits.simulation_only)),
        figures=figures,
    )
    with atomic_directory(out) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        leaderboard(board).to_csv(folder / "leaderboard.csv", index=False, float_format="%.3f", lineterminator="\n")
    return {"cells": sum(len(setting.cells) for setting in board.settings), "page_bytes": len(page.encode())}


def _part(data: Path, board: Board, setting: Setting) -> Part:
    cells = {source: setting.cell(source) for source in setting.cells}
    rows = {s: _read_table(data / "quantized" / cell / "blocks.csv", BLOCK_COLUMNS) for s, cell in cells.items()}
    # The row of the whole network is a divergence, not an error of a unit.
    blocks = {source: table[table["unit"] != "network"] for source, table in rows.items()}
    # Bits are decided by model and precision: every source has the same map.
    description = data / "quantized" / next(iter(cells.values())) / "quantization.json"
    return Part(
        setting=setting,
        finding=describe(board, setting),
        best=board.best(setting),
        accuracy=figures.accuracy_chart(setting),
        losses=figures.loss_charts(blocks, setting.title),
        gaps={s: _read_table(data / "evaluation" / cell / "gap.csv", GAP_COLUMNS) for s, cell in cells.items()},
        bits=read_artifact(BitMap, description),
    )


def _read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """Some columns of a CSV: TEXT, or numbers."""
    try:
        return pd.read_csv(require(path), usecols=columns, dtype={c: str if c in TEXT else float for c in columns})
    except ValueError as error:
        wanted = ", ".join(columns)
        raise InputError(f"{path}: expected columns {wanted} ({error}); `dvc repro` makes it anew") from None


def _labelled_loss(board: Board, parts: list[Part]) -> dict[str, int]:
    """In how many settings each data-free source leaves the last unit the smallest loss on the labelled images."""
    wins: Counter[str] = Counter()
    for part in parts:
        last = {source: part.gaps[source].labelled.iloc[-1] for source in board.data_free(part.setting)}
        wins.update(source for source in last if last[source] == min(last.values()))
    return dict(wins.most_common())


def _grid(folder: Path, source: str, count: int) -> Grid:
    """Some images of a calibration set, from its preview."""
    summary = read_artifact(Left, folder / "summary.json")
    prompts = _read_table(folder / "samples.csv", SAMPLE_COLUMNS)["prompt"].fillna("")
    try:
        images = np.load(require(folder / "images.npy"), mmap_mode="r")
    except ValueError as error:
        raise InputError(f"{folder / 'images.npy'}: not a numpy file ({error}); `dvc checkout` restores it") from None
    chosen = _spread(len(images), count)
    pictures = [Picture(_url(Image.fromarray(images[i])), prompts[i]) for i in chosen]
    return Grid(source, f"{images.shape[2]} by {images.shape[1]}", summary.images, summary.left_out, pictures)


def _spread(total: int, count: int) -> list[int]:
    """Up to `count` positions among `total`, evenly spread, first and last included."""
    positions: list[int] = np.linspace(0, total - 1, min(total, count)).round().astype(int).tolist()
    return positions


def _url(image: Image.Image) -> str:
    image = image.convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
