"""Accuracy of every network, as evaluation wrote it: leaderboard.csv and metrics.json."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ConfigDict, Field

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import Section, T, validate
from pipeline_lib.params.task import Axes

COLUMNS = ["model", "precision", "source", "method", "top1", "top1_low", "top1_high", "top5", "agreement"]


class Artifact(Section):
    """Base of what is read from another stage: typed as a section is, but keys that are not read may be there."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=True)  # what was measured may be no number


class Result(Artifact):
    """One network on the labelled images, in percent; `top1_low` and `top1_high` bound the interval of `top1`."""

    top1: float
    top1_low: float
    top1_high: float
    top5: float
    agreement: float | None = None  # images on which the prediction is the float network's; None for that network
    per_class: dict[str, float]  # top-1 by the index of a class


class FloatMetrics(Artifact):
    """metrics.json of a network as it was trained."""

    images: int
    classes: list[str]  # names by index
    result: Result = Field(alias="float")

    @property
    def names(self) -> list[str]:
        """The classes' names, with the index where two share one."""
        counts = Counter(self.classes)
        return [f"{name} ({index})" if counts[name] > 1 else name for index, name in enumerate(self.classes)]


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
    names: list[str]  # of the classes, by index
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
    real: list[str]  # the sources of real images, which give no data-free result

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


def existing(path: Path) -> Path:
    """The path of a file that another stage has written.

    Raises:
        InputError: nothing is there.
    """
    if not path.exists():
        raise InputError(f"{path}: not found; `dvc repro` makes it")
    return path


def read_artifact(model: type[T], path: Path) -> T:
    """A JSON file of another stage.

    Raises:
        InputError: absent, or not as that stage writes it.
    """
    return validate(model, read_json(existing(path)), "", path)


def read_board(evaluation: Path, axes: Axes) -> Board:
    """Every metrics.json below `evaluation` that the axes call for.

    Raises:
        InputError: one is absent or not as evaluation writes it.
    """
    floats: dict[str, FloatMetrics] = {}
    settings: list[Setting] = []
    for model in axes.models:
        floats[model] = read_artifact(FloatMetrics, evaluation / f"float-{model}" / "metrics.json")
        for precision in axes.precisions:
            setting = Setting(model, precision, floats[model].result, floats[model].names, {})
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


def top1_metrics(board: Board) -> dict[str, Any]:
    """Top-1 in percent, by model: of the float network, and of the reconstructed ones by precision and source."""
    accuracies: dict[str, Any] = {
        model: {"float": _rounded(metrics.result.top1)} for model, metrics in board.floats.items()
    }
    for setting in board.settings:
        accuracies[setting.model][setting.precision] = {
            source: _rounded(cell.reconstructed.top1) for source, cell in setting.cells.items()
        }
    return accuracies


def _rounded(top1: float) -> float:
    return round(top1, 3)  # as in leaderboard.csv


def _row(model: str, precision: str, source: str, method: str, result: Result) -> dict[str, str | float | None]:
    labels: dict[str, str | float | None] = dict(zip(COLUMNS, (model, precision, source, method), strict=False))
    return labels | result.model_dump(exclude={"per_class"})
