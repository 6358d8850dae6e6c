"""The report: one HTML file that needs no other, and beside it leaderboard and curves as CSV, and metrics as JSON."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.artifacts.tables import read_table
from pipeline_lib.errors import InputError
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.report import figures
from pipeline_lib.report.confusion import Confusion, confusion
from pipeline_lib.report.findings import overall_findings, setting_finding
from pipeline_lib.report.leaderboard import Board, Setting, leaderboard, read_artifact, read_board, top1_metrics
from pipeline_lib.report.samples import Flip, read_flips, read_grid
from pipeline_lib.report.sources import origin
from pipeline_lib.report.tables import (
    BLOCK_COLUMNS,
    GAP_COLUMNS,
    PREDICTION_COLUMNS,
    RANKING_COLUMNS,
    SENSITIVITY_COLUMNS,
    BitMap,
    read_curves,
    read_histograms,
)

TEMPLATE = Path(__file__).with_name("template.html")


@dataclass(frozen=True)
class SettingView:
    """What the page shows of one setting."""

    setting: Setting
    finding: str
    best: list[str]  # the data-free sources that nothing beats
    scores: dict[str, float]  # agreement on images kept back, by source, that needs no labels
    judge_classes: int  # that the float network sees in the images that the scores are of
    chosen: str  # the source with the highest score, or that params.yaml names
    accuracy: str  # a chart
    losses: dict[str, str]  # a chart by source
    curves: pd.DataFrame  # see `read_curves`
    gradients: str  # a chart; empty where nothing was iterated
    sensitivity: str  # a chart
    shown: str  # the source whose histograms are on the page: those of all would make a large page
    histograms: dict[str, str]  # a chart by layer
    gaps: dict[str, pd.DataFrame]  # a cell's gap.csv by source
    confusions: dict[str, Confusion]  # by source
    flips: dict[str, list[Flip]]  # by source
    bits: BitMap

    def mean_ratio(self, source: str) -> float:
        """Geometric mean, over the units, of the loss on labelled images divided by that on calibration images."""
        gap = self.gaps[source]
        positive = gap[(gap.calibration > 0) & (gap.labelled > 0)]
        return math.exp(float(np.log(positive.labelled / positive.calibration).mean()))


def write_report(data: Path, axes: Axes, params: Report, out: Path) -> dict[str, Any]:
    """Write index.html, leaderboard.csv, curves.csv and metrics.json into `out` from what the stages left below `data`.

    Returns facts for the provenance.

    Raises:
        InputError: an artifact that the axes call for is absent or damaged.
    """
    board = read_board(data / "evaluation", axes)
    views = [_view(data, board, setting) for setting in board.settings]
    page = _page(data, axes, params, board, views)
    with atomic_directory(out) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        _write_csv(leaderboard(board), folder / "leaderboard.csv", "%.3f")
        _write_csv(pd.concat([_named_curves(view) for view in views]), folder / "curves.csv", "%.5g")
        write_json(folder / "metrics.json", top1_metrics(board))
    return {"cells": sum(len(setting.cells) for setting in board.settings), "page_bytes": len(page.encode())}


def _page(data: Path, axes: Axes, params: Report, board: Board, views: list[SettingView]) -> str:
    grids = [
        read_grid(data / "preview" / f"{source}-{axes.models[0]}", source, params.samples) for source in axes.sources
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        board=board,
        axes=axes,
        parts=views,
        grids=grids,
        summary=overall_findings(board),
        labelled_loss=_labelled_loss(board, views),
        sizes=" and ".join(dict.fromkeys(grid.size for grid in grids)),
        simulated=list(dict.fromkeys(view.setting.model for view in views if view.bits.simulation_only)),
        colours=figures.colours(axes.sources),
        origin=origin,
        figures=figures,
    )


def _view(data: Path, board: Board, setting: Setting) -> SettingView:
    evaluated = {source: data / "evaluation" / setting.cell(source) for source in setting.cells}
    quantized = {source: data / "quantized" / setting.cell(source) for source in setting.cells}
    best = board.best(setting)
    shown = best[0] if best else next(iter(setting.cells))
    curves = read_curves({source: folder / "curves.csv" for source, folder in quantized.items()})
    sensitivities = {
        source: read_table(folder / "sensitivity.csv", SENSITIVITY_COLUMNS, ("layer",))
        for source, folder in evaluated.items()
    }
    gaps = {source: read_table(folder / "gap.csv", GAP_COLUMNS, ("unit",)) for source, folder in evaluated.items()}
    confusions = {
        source: confusion(read_table(folder / "predictions.csv", PREDICTION_COLUMNS), setting.names)
        for source, folder in evaluated.items()
    }
    scores, judge_classes, chosen = _choice(data / "choice/ranking.csv", setting)
    return SettingView(
        setting=setting,
        finding=setting_finding(board, setting),
        best=best,
        scores=scores,
        judge_classes=judge_classes,
        chosen=chosen,
        accuracy=figures.accuracy_chart(setting),
        losses=figures.loss_charts(_losses_of_units(quantized), setting.title),
        curves=curves,
        gradients=figures.gradient_chart(curves, setting.title) if len(curves) else "",
        sensitivity=figures.sensitivity_chart(sensitivities, setting.title),
        shown=shown,
        histograms=_histogram_charts(evaluated[shown] / "histograms.json", setting),
        gaps=gaps,
        confusions=confusions,
        flips={source: read_flips(folder, setting.names) for source, folder in evaluated.items()},
        # Bits are decided by model and precision: every source has the same map.
        bits=read_artifact(BitMap, quantized[shown] / "quantization.json"),
    )


def _choice(ranking: Path, setting: Setting) -> tuple[dict[str, float], int, str]:
    """The scores of a setting's sources, in how many classes, and the source that was chosen."""
    table = read_table(ranking, RANKING_COLUMNS, ("model", "precision", "source", "chosen"))
    rows = table[(table["model"] == setting.model) & (table["precision"] == setting.precision)]
    chosen = rows.loc[rows["chosen"] == "True", "source"]
    if len(chosen) != 1 or chosen.item() not in setting.cells:
        raise InputError(
            f"{ranking}: expected one chosen source of {setting.title}, found {', '.join(chosen) or 'none'}; "
            "`dvc repro` makes it anew"
        )
    scores = dict(zip(rows["source"], rows["agreement"], strict=True))
    return scores, int(rows["judge_classes"].iloc[0]), chosen.item()


def _losses_of_units(quantized: dict[str, Path]) -> dict[str, pd.DataFrame]:
    """Each cell's blocks.csv by source, without the row of the whole network: a divergence, not an error of a unit."""
    tables = {}
    for source, folder in quantized.items():
        table = read_table(folder / "blocks.csv", BLOCK_COLUMNS, ("unit",))
        tables[source] = table[table["unit"] != "network"]
    return tables


def _histogram_charts(path: Path, setting: Setting) -> dict[str, str]:
    histograms = read_histograms(path)
    return {layer: figures.histogram_chart(layer, histogram, setting.title) for layer, histogram in histograms.items()}


def _labelled_loss(board: Board, views: list[SettingView]) -> dict[str, int]:
    """In how many settings each data-free source leaves the last unit the smallest loss on the labelled images."""
    wins: Counter[str] = Counter()
    for view in views:
        losses = {source: view.gaps[source].labelled.iloc[-1] for source in board.data_free(view.setting)}
        wins.update(source for source, loss in losses.items() if loss == min(losses.values()))
    return dict(wins.most_common())


def _named_curves(view: SettingView) -> pd.DataFrame:
    """A setting's curves with its model and precision in front."""
    curves = view.curves.copy()
    curves.insert(0, "precision", view.setting.precision)
    curves.insert(0, "model", view.setting.model)
    return curves


def _write_csv(table: pd.DataFrame, path: Path, number_format: str) -> None:
    table.to_csv(path, index=False, float_format=number_format, lineterminator="\n")
