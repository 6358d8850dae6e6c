"""The report: one HTML file that needs no other, and beside it the leaderboard and the curves as CSV."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.report import figures
from pipeline_lib.report.confusion import Confusion, confusion
from pipeline_lib.report.leaderboard import Board, Setting, describe, leaderboard, read_artifact, read_board, summarise
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
    read_table,
)

TEMPLATE = Path(__file__).with_name("template.html")


@dataclass(frozen=True)
class Part:
    """What the page shows of one setting."""

    setting: Setting
    finding: str
    best: list[str]
    scores: dict[str, float]  # agreement on images kept back, by source, that needs no labels
    chosen: str  # by these scores, or by name
    accuracy: str
    losses: dict[str, str]  # chart by source
    curves: pd.DataFrame
    gradients: str
    sensitivity: str
    shown: str  # the source whose histograms are shown: all of them would make a large page
    histograms: dict[str, str]  # chart by layer
    gaps: dict[str, pd.DataFrame]  # by source
    confusions: dict[str, Confusion]  # by source
    flips: dict[str, list[Flip]]  # by source
    bits: BitMap

    def mean_ratio(self, source: str) -> float:
        """Geometric mean over the units of loss on labelled images / on calibration images."""
        gap = self.gaps[source]
        gap = gap[(gap.calibration > 0) & (gap.labelled > 0)]
        return math.exp(float(np.log(gap.labelled / gap.calibration).mean()))


def write_report(data: Path, axes: Axes, params: Report, out: Path) -> dict[str, Any]:
    """Write index.html, leaderboard.csv and curves.csv into `out` from what the stages left below `data`.

    Returns facts for the provenance.

    Raises:
        InputError: an artifact that the axes call for is absent or damaged.
    """
    board = read_board(data / "evaluation", axes)
    parts = [_part(data, board, setting) for setting in board.settings]
    grids = [
        read_grid(data / "preview" / f"{source}-{axes.models[0]}", source, params.samples) for source in axes.sources
    ]
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
        colours=figures.colours(axes.sources),
        origin=origin,
        figures=figures,
    )
    with atomic_directory(out) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        _write_csv(leaderboard(board), folder / "leaderboard.csv", "%.3f")
        _write_csv(pd.concat([_labelled_curves(part) for part in parts]), folder / "curves.csv", "%.5g")
    return {"cells": sum(len(setting.cells) for setting in board.settings), "page_bytes": len(page.encode())}


def _part(data: Path, board: Board, setting: Setting) -> Part:
    evaluation = {source: data / "evaluation" / setting.cell(source) for source in setting.cells}
    quantized = {source: data / "quantized" / setting.cell(source) for source in setting.cells}
    rows = {s: read_table(folder / "blocks.csv", BLOCK_COLUMNS, ("unit",)) for s, folder in quantized.items()}
    # The row of the whole network is a divergence, not an error of a unit.
    blocks = {source: table[table["unit"] != "network"] for source, table in rows.items()}
    curves = read_curves({source: folder / "curves.csv" for source, folder in quantized.items()})
    costs = {
        s: read_table(folder / "sensitivity.csv", SENSITIVITY_COLUMNS, ("layer",)) for s, folder in evaluation.items()
    }
    shown = (board.best(setting) or list(setting.cells))[0]
    histograms = read_histograms(evaluation[shown] / "histograms.json")
    classes = list(setting.float_result.per_class)
    ranking = read_table(data / "choice/ranking.csv", RANKING_COLUMNS, ("model", "precision", "source", "chosen"))
    ranking = ranking[(ranking["model"] == setting.model) & (ranking["precision"] == setting.precision)]
    return Part(
        setting=setting,
        finding=describe(board, setting),
        best=board.best(setting),
        scores=dict(zip(ranking["source"], ranking["agreement"], strict=True)),
        chosen=ranking.loc[ranking["chosen"] == "True", "source"].item(),
        accuracy=figures.accuracy_chart(setting),
        losses=figures.loss_charts(blocks, setting.title),
        curves=curves,
        gradients=figures.gradient_chart(curves, setting.title),
        sensitivity=figures.sensitivity_chart(costs, setting.title),
        shown=shown,
        histograms={layer: figures.histogram_chart(layer, h, setting.title) for layer, h in histograms.items()},
        gaps={s: read_table(folder / "gap.csv", GAP_COLUMNS, ("unit",)) for s, folder in evaluation.items()},
        confusions={
            s: confusion(read_table(folder / "predictions.csv", PREDICTION_COLUMNS), classes)
            for s, folder in evaluation.items()
        },
        flips={source: read_flips(folder) for source, folder in evaluation.items()},
        # Bits are decided by model and precision: every source has the same map.
        bits=read_artifact(BitMap, quantized[shown] / "quantization.json"),
    )


def _labelled_loss(board: Board, parts: list[Part]) -> dict[str, int]:
    """In how many settings each data-free source leaves the last unit the smallest loss on the labelled images."""
    wins: Counter[str] = Counter()
    for part in parts:
        last = {source: part.gaps[source].labelled.iloc[-1] for source in board.data_free(part.setting)}
        wins.update(source for source in last if last[source] == min(last.values()))
    return dict(wins.most_common())


def _labelled_curves(part: Part) -> pd.DataFrame:
    return part.curves.assign(model=part.setting.model, precision=part.setting.precision)[
        ["model", "precision", *part.curves]
    ]


def _write_csv(table: pd.DataFrame, path: Path, form: str) -> None:
    table.to_csv(path, index=False, float_format=form, lineterminator="\n")
