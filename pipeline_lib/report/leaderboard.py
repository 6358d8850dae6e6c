"""Accuracy of every network, as evaluation wrote it: leaderboard.csv, and what the numbers say in words."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import ConfigDict, Field

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import S, Section, validate
from pipeline_lib.params.task import Axes

COLUMNS = ["model", "precision", "source", "method", "top1", "top1_low", "top1_high", "top5", "agreement"]


class Artifact(Section):
    """Base of what is read from another stage: typed as a section is, but keys that are not shown may be there."""

    model_config = ConfigDict(extra="ignore")


class Result(Artifact):
    """Of one network on the labelled images, in percent; `top1_low` and `top1_high` bound the interval of `top1`."""

    top1: float
    top1_low: float
    top1_high: float
    top5: float
    agreement: float | None = None  # images on which the prediction is the float network's; None for that one
    per_class: dict[str, float]


class FloatMetrics(Artifact):
    """metrics.json of a network as it was trained."""

    images: int
    result: Result = Field(alias="float")


class CellMetrics(Artifact):
    """metrics.json of a cell."""

    reconstructed: Result
    nearest: Result
    calibration: dict[str, float | None] = Field(default_factory=dict)  # calibration images against labelled ones


@dataclass(frozen=True)
class Setting:
    """A model at a precision: the networks that differ in nothing but the source of their calibration images."""

    model: str
    precision: str
    float_result: Result
    cells: dict[str, CellMetrics]  # by source, in the order of the axes

    @property
    def title(self) -> str:
        """`resnet at w4a4`."""
        return f"{self.model} at {self.precision}"

    def cell(self, source: str) -> str:
        """Name of a cell's folders."""
        return f"{source}-{self.model}-{self.precision}"


@dataclass(frozen=True)
class Board:
    """All results."""

    floats: dict[str, FloatMetrics]  # by model, in the order of the axes
    settings: list[Setting]  # models, then precisions, in the order of the axes
    real: list[str]  # the sources that are no data-free result

    def calibration(self, model: str) -> dict[str, dict[str, float | None]]:
        """By source, its calibration images against labelled ones; precision does not change them."""
        setting = next(setting for setting in self.settings if setting.model == model)
        return {source: cell.calibration for source, cell in setting.cells.items() if cell.calibration}

    def data_free(self, setting: Setting) -> list[str]:
        """The setting's sources without real images, the most accurate after reconstruction first."""
        sources = [source for source in setting.cells if source not in self.real]
        return sorted(sources, key=lambda source: -setting.cells[source].reconstructed.top1)

    def best(self, setting: Setting) -> list[str]:
        """The data-free sources that nothing beats: one, or several at the same accuracy."""
        ranked = self.data_free(setting)
        accuracy = {source: setting.cells[source].reconstructed.top1 for source in ranked}
        return [source for source in ranked if accuracy[source] == accuracy[ranked[0]]]


def require(path: Path) -> Path:
    """The path, which must be there.

    Raises:
        InputError: it is not.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; `dvc repro` makes it")
    return path


def read_artifact(model: type[S], path: Path) -> S:
    """A JSON file of another stage.

    Raises:
        InputError: absent, or not as that stage writes it.
    """
    return validate(model, read_json(require(path)), "", path)


def read_board(evaluation: Path, axes: Axes) -> Board:
    """Every metrics.json below `evaluation` that the axes call for.

    Raises:
        InputError: one is absent or not as evaluation writes it.
    """
    floats = {m: read_artifact(FloatMetrics, evaluation / f"float-{m}" / "metrics.json") for m in axes.models}
    settings = []
    for model in axes.models:
        for precision in axes.precisions:
            setting = Setting(model, precision, floats[model].result, {})
            for source in axes.sources:
                path = evaluation / setting.cell(source) / "metrics.json"
                setting.cells[source] = read_artifact(CellMetrics, path)
            settings.append(setting)
    return Board(floats, settings, axes.real)


def leaderboard(board: Board) -> pd.DataFrame:
    """A row a network with COLUMNS: each model's float network, then nearest and reconstructed of each cell."""
    rows = []
    for model, metrics in board.floats.items():
        rows.append(_row(model, "float", "-", "float", metrics.result))
        for setting in board.settings:
            if setting.model == model:
                for source, cell in setting.cells.items():
                    rows.append(_row(model, setting.precision, source, "nearest", cell.nearest))
                    rows.append(_row(model, setting.precision, source, "reconstructed", cell.reconstructed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(model: str, precision: str, source: str, method: str, result: Result) -> dict[str, str | float | None]:
    labels: dict[str, str | float | None] = dict(zip(COLUMNS, (model, precision, source, method), strict=False))
    return labels | result.model_dump(exclude={"per_class"})


def summarise(board: Board) -> list[str]:
    """The findings over all settings, a sentence each."""
    contests = [s for s in board.settings if len(board.data_free(s)) > 1]
    sentences = []
    if contests:
        first = Counter(board.best(s)[0] for s in contests if len(board.best(s)) == 1)
        ranking = [f"{source} in {count}" for source, count in first.most_common()]
        ties = sum(len(board.best(s)) > 1 for s in contests)
        ranking += [f"a tie in {ties}"] if ties else []
        apart = sum(not _overlap(s, *board.data_free(s)[:2]) for s in contests)
        sentences.append(
            f"Most accurate data-free source, over {_count(len(contests), 'setting')} of model and precision: "
            f"{', '.join(ranking)}. Its interval lies clear of the next source's in {apart} of {len(contests)}."
        )
    cells = [cell for s in board.settings for cell in s.cells.values()]
    if cells:
        gains = [cell.reconstructed.top1 - cell.nearest.top1 for cell in cells]
        sentences.append(
            f"Reconstruction is more accurate than rounding to nearest in {sum(g > 0 for g in gains)} of "
            f"{_count(len(cells), 'cell')}; the mean change is {sum(gains) / len(gains):+.2f} points."
        )
    return sentences


def describe(board: Board, setting: Setting) -> str:
    """What one setting says about its sources, in a sentence or two."""
    ranked, best = board.data_free(setting), board.best(setting)
    if not ranked:
        return f"{setting.title}: no data-free source was evaluated."
    top = setting.cells[ranked[0]].reconstructed
    text = (
        f"{setting.title}: {' and '.join(best)} {'is' if len(best) == 1 else 'tie as'} the most accurate data-free "
        f"source, {top.top1:.2f}% ({top.top1_low:.2f} to {top.top1_high:.2f}), "
        f"{_signed_distance(top.top1 - setting.float_result.top1)} the float network's"
    )
    others = [source for source in ranked if source not in best]
    if others:
        lead = top.top1 - setting.cells[others[0]].reconstructed.top1
        intervals = "overlap" if _overlap(setting, ranked[0], others[0]) else "do not overlap"
        text += f" and {lead:.2f} points above {others[0]}, the next; the two intervals {intervals}"
    real = [setting.cells[source].reconstructed.top1 for source in board.real]
    return text + "".join(f". Calibrated on real images: {top1:.2f}%" for top1 in real) + "."


def _overlap(setting: Setting, one: str, other: str) -> bool:
    a, b = setting.cells[one].reconstructed, setting.cells[other].reconstructed
    return a.top1_low <= b.top1_high and b.top1_low <= a.top1_high


def _signed_distance(points: float) -> str:
    return f"{abs(points):.2f} points {'above' if points > 0 else 'below'}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
