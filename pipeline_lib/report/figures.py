"""Charts as inline SVG that takes the page's text colour, with the same bytes for the same numbers."""

import html
import io
import re

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline_lib.report.leaderboard import Setting

NEAREST, RECONSTRUCTED = "#9a9a9a", "#3f7fc4"  # legible on white and on black
CALIBRATION, HELD_OUT = "#3f7fc4", "#d9822b"
INK = "#010203"  # stands for the page's text colour until the SVG is written

STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and it takes the page's colour
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


def accuracy_chart(setting: Setting) -> str:
    """Top-1 of each source, nearest above reconstructed, with error bars; the dashed line is the float network."""
    height = 0.38  # of a bar, in rows
    rows = np.arange(len(setting.cells))
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(4.2, 0.7 + 0.5 * len(rows)))
        axes = figure.subplots()
        results = (
            (-height / 2, NEAREST, [cell.nearest for cell in setting.cells.values()]),
            (height / 2, RECONSTRUCTED, [cell.reconstructed for cell in setting.cells.values()]),
        )
        for offset, colour, bars in results:
            top1 = [bar.top1 for bar in bars]
            errors = [[bar.top1 - bar.top1_low for bar in bars], [bar.top1_high - bar.top1 for bar in bars]]
            style = {"ecolor": INK, "elinewidth": 1, "capsize": 2}
            axes.barh(rows + offset, top1, height, color=colour, xerr=errors, error_kw=style)
            for row, value in zip(rows + offset, top1, strict=True):
                axes.text(1.02, row, f"{value:.1f}", va="center", transform=axes.get_yaxis_transform())
        axes.axvline(setting.float_result.top1, color=INK, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 100), xlabel="top-1, % of the test images", yticks=rows, yticklabels=list(setting.cells))
        axes.invert_yaxis()
        return _svg(figure, f"Top-1 of each source, {setting.title}")


def loss_charts(tables: dict[str, pd.DataFrame], title: str) -> dict[str, str]:
    """Loss of each unit of some cells, on one scale so that they compare.

    A table is a cell's blocks.csv. Dashed: rounded to nearest; solid: reconstructed.
    """
    columns = ["loss_before", "loss_after", "held_out_before", "held_out_after"]
    losses = np.concatenate([table[columns].to_numpy(float).ravel() for table in tables.values()])
    shown = losses[losses > 0]  # the scale is logarithmic
    limits = (shown.min() / 1.5, shown.max() * 1.5) if shown.size else (0.1, 1.0)
    charts = {}
    for source, table in tables.items():
        with matplotlib.style.context(["default", STYLE]):
            figure = Figure(figsize=(2.4, 1.9))
            axes: Axes = figure.subplots()
            units = np.arange(1, len(table) + 1)
            for column, colour, line in zip(
                columns, (CALIBRATION, CALIBRATION, HELD_OUT, HELD_OUT), ("--", "-") * 2, strict=True
            ):
                axes.plot(units, table[column], color=colour, linestyle=line, linewidth=1.2, marker=".", markersize=4)
            axes.set(yscale="log", ylim=limits, xlabel="unit")
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            charts[source] = _svg(figure, f"Loss of each unit, {source}, {title}")
    return charts


def _svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element for an HTML page; `label` is read to those who do not see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):  # ids without chance, and different in each figure of a page
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # names of parts, the same in every figure and referred to by none
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
