"""The study's answer: means, paired comparisons with a baseline, and what predicts which source is best."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, kendalltau

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError
from pipeline_lib.params.study import Study
from pipeline_lib.study.files import CELLS, PREDICTIONS, SETS, UNITS
from pipeline_lib.study.statistics import Hits, mcnemar, paired_difference

SETTING = ["domain", "model", "precision"]
AllHits = dict[tuple[str, str, str, str], Hits]  # by domain, model, precision and source
ALL = "all"  # of a column over which a comparison is pooled
OF_IMAGES = {"precision": "image_precision", "recall": "image_recall"}  # a cell has a precision of another kind
RANKED_BY = {  # figure of a cell or its set: whether a good source has it high
    "agreement": True,
    "kernel_distance": False,
    "image_precision": True,
    "image_recall": True,
    "density": True,
    "coverage": True,
    "diversity": True,
    "recognised": True,
    "named_accuracy": True,
    "gap": False,
    "loss_labelled": False,
    "gradient_norm": False,
}


def compare(folder: Path, study: Study, baseline: str, out: Path) -> dict[str, Any]:
    """Write means.csv, comparisons.csv and ranking.csv from what the cells below `folder` left.

    `baseline` is the source that all others are compared with.

    Returns facts for the provenance.

    Raises:
        InputError: a source's cells are absent.
    """
    cells, hits = _read(folder, study)
    comparisons = _comparisons(hits, study, baseline)
    comparisons["p_adjusted"] = np.nan
    for _, family in comparisons.groupby(comparisons["model"] == ALL):  # pooled ones repeat the single ones
        comparisons.loc[family.index, "p_adjusted"] = false_discovery_control(family["p"])
    with atomic_directory(out) as temporary:
        for name, table in (
            ("means.csv", _means(cells)),
            ("comparisons.csv", comparisons),
            ("ranking.csv", _ranking(cells)),
        ):
            table.to_csv(temporary / name, index=False, float_format="%.5g")
    return {"cells": len(cells), "comparisons": len(comparisons)}


def _read(folder: Path, study: Study) -> tuple[pd.DataFrame, AllHits]:
    """A row a cell with all its figures; and by domain, model, precision and source what was classified rightly."""
    tables: list[pd.DataFrame] = []
    hits: AllHits = {}
    for domain in study.axes.domains:
        for model in study.axes.models:
            for source in study.axes.sources:
                path = folder / f"{source}-{domain}-{model}"
                if not (path / CELLS).exists():
                    raise InputError(f"{path / CELLS}: not found; `dvc repro` makes it")
                sets = pd.read_csv(path / SETS).rename(columns=OF_IMAGES)
                table = pd.read_csv(path / CELLS).merge(sets, on="replicate")
                table = table.merge(_unit_figures(pd.read_csv(path / UNITS)), on=["precision", "replicate"])
                judged = [f"agreement_{judge}" for judge in study.cells.judges]
                table["judged"] = table[judged].mean(axis=1)  # of no judges: not a number
                tables.append(table.assign(domain=domain, model=model, source=source))
                predictions = pd.read_csv(path / PREDICTIONS)
                for precision in study.cells.precisions:
                    columns = [f"{precision}-{r}" for r in range(study.cells.replicates)]
                    right = predictions[columns].to_numpy() == predictions[["label"]].to_numpy()
                    hits[domain, model, precision, source] = right.T
    return pd.concat(tables, ignore_index=True), hits


def _unit_figures(units: pd.DataFrame) -> pd.DataFrame:
    """Of a cell: the last unit's loss on labelled images; geometric means over its units of the other figures."""
    positive = units[(units["calibration"] > 0) & (units["labelled"] > 0)]
    logs = positive.assign(
        gap=np.log(positive["labelled"] / positive["calibration"]),
        gradient_norm=np.log(positive["gradient_norm"]),
        gradient_variation=np.log(positive["gradient_spread"] / positive["gradient_norm"]),
    )
    cells = logs.groupby(["precision", "replicate"])
    means = cells[["gap", "gradient_norm", "gradient_variation"]].mean()
    figures = means.apply(np.exp).assign(loss_labelled=cells["labelled"].last())
    return figures.reset_index()


def _means(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a setting and source: mean and spread of top-1 over replicates, and means of all other figures."""
    groups = cells.groupby([*SETTING, "source"], sort=False)
    spread = groups["top1"].agg(["std", "count"]).rename(columns={"std": "top1_spread", "count": "replicates"})
    return groups.mean(numeric_only=True).drop(columns="replicate").join(spread).reset_index()


def _comparisons(hits: AllHits, study: Study, baseline: str) -> pd.DataFrame:
    """Every source against the baseline: in each setting, and pooled over models, and over precisions as well."""
    rows = []
    axes, precisions = study.axes, study.cells.precisions
    pools: list[tuple[str, str, str, list[tuple[str, str]]]] = []
    for domain in axes.domains:
        single = [(model, precision) for model in axes.models for precision in precisions]
        pools += [(domain, model, precision, [(model, precision)]) for model, precision in single]
        pools += [(domain, ALL, precision, [(m, p) for m, p in single if p == precision]) for precision in precisions]
        pools.append((domain, ALL, ALL, single))
    for domain, model, precision, members in pools:
        for source in axes.sources:
            if source == baseline:
                continue
            one, other = (np.concatenate([hits[domain, m, p, name] for m, p in members]) for name in (source, baseline))
            difference = paired_difference(one, other, study.resamples, study.confidence)
            tests = [mcnemar(a, b) for a, b in zip(one, other, strict=True)]
            won, lost = sum(t.won for t in tests), sum(t.lost for t in tests)
            row: dict[str, Any] = {"domain": domain, "model": model, "precision": precision, "source": source}
            row |= {**difference._asdict(), "odds_ratio": won / lost if lost else np.inf}
            if "real" in axes.baselines:
                real = np.concatenate([hits[domain, m, p, "real"] for m, p in members])
                row["share_of_real"] = float((one.mean() - other.mean()) / (real.mean() - other.mean()))
            row["mcnemar_wins"] = sum(t.p < 0.05 and t.won > t.lost for t in tests)
            row["mcnemar_losses"] = sum(t.p < 0.05 and t.won < t.lost for t in tests)
            rows.append({**row, "pairs": len(tests)})
    return pd.DataFrame(rows)


def _ranking(cells: pd.DataFrame) -> pd.DataFrame:
    """How well figures that need no labels, or others, order the sources without real images by accuracy.

    A row a setting and figure: Kendall's tau with the mean top-1, what the source that it would choose reaches, and the
    points that the best source is above that.
    """
    rows = []
    free = cells[cells["source"] != "real"]
    for setting, group in free.groupby(SETTING, sort=False):
        means = group.groupby("source", sort=False).mean(numeric_only=True)
        figures = {"judged": True, **RANKED_BY}
        for figure, high in figures.items():
            known = means[means[figure].notna()]
            if known.empty:
                continue
            order = known[figure] if high else -known[figure]
            chosen = known.iloc[int(order.argmax())]
            rows.append(
                {
                    **dict(zip(SETTING, setting, strict=True)),
                    "figure": figure,
                    "sources": len(known),
                    "kendall_tau": float(kendalltau(order, known["top1"]).statistic),
                    "chosen": str(chosen.name),
                    "top1": float(chosen["top1"]),
                    "regret": float(known["top1"].max() - chosen["top1"]),
                }
            )
    return pd.DataFrame(rows)
