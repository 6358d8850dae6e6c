"""Charts as inline SVG that takes the page's text colour, with the same bytes for the same numbers."""

import html
import io
import re
from collections.abc import Iterable
from itertools import cycle

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from pipeline_lib.report.leaderboard import Setting
from pipeline_lib.report.tables import LayerHistograms

NEAREST, RECONSTRUCTED = "#9a9a9a", "#3f7fc4"  # legible on white and on black
CALIBRATION, HELD_OUT = "#3f7fc4", "#d9822b"
PALETTE = ("#3f7fc4", "#d9822b", "#3a9b6a", "#c9545a", "#8f6bbf", "#35a5b5", "#a3a13a", "#d077b0", "#9c755f", "#8c8c8c")
MARKERS = "osD^vP*Xhd"
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
# For charts of which there are many: computing a layout takes most of a chart's time.
FIXED_LAYOUT = {"figure.constrained_layout.use": False}


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
    positive = losses[losses > 0]  # the scale is logarithmic
    limits = (positive.min() / 1.5, positive.max() * 1.5) if positive.size else (0.1, 1.0)
    charts = {}
    for source, table in tables.items():
        with matplotlib.style.context(["default", STYLE, FIXED_LAYOUT]):
            figure = Figure(figsize=(2.4, 1.9))
            axes: Axes = figure.subplots()
            units = np.arange(1, len(table) + 1)
            for column in columns:
                colour = HELD_OUT if column.startswith("held_out") else CALIBRATION
                line = "--" if column.endswith("before") else "-"
                axes.plot(units, table[column], color=colour, linestyle=line, linewidth=1.2, marker=".", markersize=4)
            axes.set(yscale="log", ylim=limits, xlabel="unit")
            _plain_ticks(axes.yaxis)
            figure.subplots_adjust(0.22, 0.2, 0.98, 0.98)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            charts[source] = _svg(figure, f"Loss of each unit, {source}, {title}")
    return charts


def colours(sources: Iterable[str]) -> dict[str, str]:
    """The colour of each source in charts that hold several."""
    return dict(zip(sources, cycle(PALETTE), strict=False))


def gradient_chart(curves: pd.DataFrame, title: str) -> str:
    """Norm of the gradient along reconstruction, a line a source, a band a unit. `curves`: see `read_curves`."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(4.2, 2.4))
        axes = figure.subplots()
        for (_, curve), colour in zip(curves.groupby("source", sort=False), cycle(PALETTE), strict=False):
            axes.plot(curve["position"], curve["gradient_norm"], color=colour, linewidth=0.9)
        units = curves["unit"].unique()
        for end in range(1, len(units)):
            axes.axvline(end, color=INK, linewidth=0.4, alpha=0.4)
        names = ["all" if unit == "network" else str(number) for number, unit in enumerate(units, 1)]
        axes.set(yscale="log", xlim=(0, len(units)), xlabel="unit", ylabel="norm of the gradient")
        _plain_ticks(axes.yaxis)
        axes.set_xticks(np.arange(len(units)) + 0.5, names)
        axes.tick_params("x", length=0)
        return _svg(figure, f"Norm of the gradient along reconstruction, {title}")


def sensitivity_chart(tables: dict[str, pd.DataFrame], title: str) -> str:
    """Divergence of each layer quantized alone, a mark a source. A table is a cell's sensitivity.csv."""
    layers = next(iter(tables.values()))["layer"].tolist()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(4.2, 0.7 + 0.16 * len(layers)))
        axes = figure.subplots()
        for table, colour, marker in zip(tables.values(), cycle(PALETTE), cycle(MARKERS), strict=False):
            positive = table["divergence"].where(table["divergence"] > 0)  # the scale is logarithmic
            axes.plot(positive, range(len(layers)), color=colour, linestyle="", marker=marker, markersize=4, alpha=0.8)
        axes.set(xscale="log", xlabel="divergence, nats")
        _plain_ticks(axes.xaxis)
        axes.set_yticks(range(len(layers)), layers, fontsize=7)
        axes.grid(axis="y", color=INK, linewidth=0.3, alpha=0.3)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        return _svg(figure, f"Divergence of each layer quantized alone, {title}")


def histogram_chart(layer: str, histogram: LayerHistograms, title: str) -> str:
    """Weight and input of a layer, heights the logarithm of counts; dashed: where its quantizers clip.

    There are many of these charts: a plain scale takes a fraction of the time.
    """
    with matplotlib.style.context(["default", STYLE, FIXED_LAYOUT]):
        figure = Figure(figsize=(2.4, 0.9))
        parts = (("weight", histogram.weight, CALIBRATION), ("input", histogram.input, HELD_OUT))
        for axes, (name, part, colour) in zip(figure.subplots(1, 2), parts, strict=True):
            edges = np.linspace(part.lo, part.hi, len(part.counts) + 1)
            axes.stairs(np.log1p(part.counts), edges, fill=True, color=colour)
            for clip in (part.clip_lo, part.clip_hi):
                axes.axvline(clip, color=INK, linestyle="--", linewidth=0.8)
            ends = min(part.lo, part.clip_lo), max(part.hi, part.clip_hi)
            margin = 0.03 * (ends[1] - ends[0])
            axes.set(xlim=(ends[0] - margin, ends[1] + margin), yticks=[], xlabel=name)
            axes.spines.left.set_visible(False)
            axes.set_xticks(ends, [f"{end:.2g}" for end in ends])
            axes.xaxis.labelpad = -8
        figure.subplots_adjust(0.06, 0.3, 0.94, 0.97, wspace=0.3)
        return _svg(figure, f"Histograms of {layer}, {title}")


def _plain_ticks(axis: Axis) -> None:
    """Write powers of ten as decimals; typeset as formulas they take a third of the page's time."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _svg(figure: Figure, label: str) -> str:
    """The figure as an SVG element for an HTML page; `label` is read to those who do not see it."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label}):  # ids without chance, and different in each figure of a page
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # names of parts, the same in every figure and referred to by none
    # A path has micrometres of precision and half of the page's bytes; a hundredth of a point will do.
    text = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace(" \n", " "), text)
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1)
