"""What the study finds: means, paired comparisons with a baseline, and figures that tell which source is best."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, kendalltau

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.artifacts.tables import MEND, read_table
from pipeline_lib.errors import reading
from pipeline_lib.params.study import Study
from pipeline_lib.study.files import CELLS, PREDICTIONS, SETS, UNITS
from pipeline_lib.study.statistics import Hits, mcnemar, paired_difference

SETTING = ["domain", "model", "precision"]
Members = list[tuple[str, str]]  # models and precisions
HitsOfSources = dict[tuple[str, str, str, str], Hits]  # by domain, model, precision and source
ALL = "all"  # the model or precision of a comparison that is pooled over all of them
# columns of sets.csv that get another name: the precision of a cell is its bits
RENAMED = {"precision": "image_precision", "recall": "image_recall"}
HIGH_IS_GOOD = {  # figures of a cell or its set that sources are ranked by
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
    """Write means.csv, comparisons.csv and ranking.csv from the tables of the cells below `folder`.

    `baseline` is the source that all others are compared with. Returns facts for the provenance.

    Raises:
        InputError: a source's cells are absent.
    """
    cells, hits = _read(folder, study)
    comparisons = _comparisons(hits, study, baseline)
    comparisons["p_adjusted"] = np.nan
    # pooled comparisons repeat the single ones: each sort is adjusted by itself
    for _, family in comparisons.groupby(comparisons["model"] == ALL):
        comparisons.loc[family.index, "p_adjusted"] = false_discovery_control(family["p"])
    tables = {"means.csv": _means(cells), "comparisons.csv": comparisons, "ranking.csv": _ranking(cells)}
    with atomic_directory(out) as temporary:
        for name, table in tables.items():
            table.to_csv(temporary / name, index=False, float_format="%.5g")
    return {"cells": len(cells), "comparisons": len(comparisons)}


def _read(folder: Path, study: Study) -> tuple[pd.DataFrame, HitsOfSources]:
    """A row for each cell with all its figures, and what each source classifies rightly."""
    tables: list[pd.DataFrame] = []
    hits: HitsOfSources = {}
    for domain in study.axes.domains:
        for model in study.axes.models:
            for source in study.axes.sources:
                path = folder / f"{source}-{domain}-{model}"
                with reading(path, "the tables of a study's cells", MEND):
                    sets = pd.read_csv(path / SETS).rename(columns=RENAMED)
                    table = pd.read_csv(path / CELLS).merge(sets, on="replicate")
                    table = table.merge(_unit_figures(pd.read_csv(path / UNITS)), on=["precision", "replicate"])
                judged = [f"agreement_{judge}" for judge in study.cells.judges]
                table["judged"] = table[judged].mean(axis=1)  # not a number without judges
                tables.append(table.assign(domain=domain, model=model, source=source))
                for precision in study.cells.precisions:
                    columns = [f"{precision}-{replicate}" for replicate in range(study.cells.replicates)]
                    predictions = read_table(path / PREDICTIONS, ["label", *columns])
                    right = predictions[columns].to_numpy() == predictions[["label"]].to_numpy()
                    hits[domain, model, precision, source] = right.T
    return pd.concat(tables, ignore_index=True), hits


def _unit_figures(units: pd.DataFrame) -> pd.DataFrame:
    """For each cell the last unit's loss on labelled images, and geometric means of other figures over its units."""
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
    """A row for each setting and source: mean and spread of top-1 over replicates, and means of all other figures."""
    groups = cells.groupby([*SETTING, "source"], sort=False)
    spread = groups["top1"].agg(["std", "count"]).rename(columns={"std": "top1_spread", "count": "replicates"})
    return groups.mean(numeric_only=True).drop(columns="replicate").join(spread).reset_index()


def _comparisons(hits: HitsOfSources, study: Study, baseline: str) -> pd.DataFrame:
    """Every source against the baseline: in each setting, and pooled over models, and over precisions as well."""
    rows = []
    for (domain, model, precision), members in _pools(study).items():
        by_baseline = _pooled(hits, domain, members, baseline)
        for source in study.axes.sources:
            if source == baseline:
                continue
            by_source = _pooled(hits, domain, members, source)
            difference = paired_difference(by_source, by_baseline, study.resamples, study.confidence)
            tests = [mcnemar(one, other) for one, other in zip(by_source, by_baseline, strict=True)]
            won = sum(test.won for test in tests)
            lost = sum(test.lost for test in tests)
            row: dict[str, Any] = {"domain": domain, "model": model, "precision": precision, "source": source}
            row |= {**difference._asdict(), "odds_ratio": won / lost if lost else np.inf}
            if "real" in study.axes.baselines:
                by_real = _pooled(hits, domain, members, "real")
                gain = by_source.mean() - by_baseline.mean()
                gain_of_real = by_real.mean() - by_baseline.mean()
                row["share_of_real"] = float(gain / gain_of_real) if gain_of_real else np.nan
            row["mcnemar_wins"] = sum(test.p < 0.05 and test.won > test.lost for test in tests)
            row["mcnemar_losses"] = sum(test.p < 0.05 and test.won < test.lost for test in tests)
            rows.append({**row, "pairs": len(tests)})
    return pd.DataFrame(rows)


def _pools(study: Study) -> dict[tuple[str, str, str], Members]:
    """By domain, model and precision, either of which may be ALL, the models and precisions that are compared there."""
    pools: dict[tuple[str, str, str], Members] = {}
    precisions = study.cells.precisions
    for domain in study.axes.domains:
        every = [(model, precision) for model in study.axes.models for precision in precisions]
        for model, precision in every:
            pools[domain, model, precision] = [(model, precision)]
        for precision in precisions:
            pools[domain, ALL, precision] = [member for member in every if member[1] == precision]
        pools[domain, ALL, ALL] = every
    return pools


def _pooled(hits: HitsOfSources, domain: str, members: Members, source: str) -> Hits:
    """What a source classifies rightly on all members, (replicates of all, images)."""
    return np.concatenate([hits[domain, model, precision, source] for model, precision in members])


def _ranking(cells: pd.DataFrame) -> pd.DataFrame:
    """How well figures that need no labels, or others, order the sources without real images by accuracy.

    A row for each setting and figure: Kendall's tau with the mean top-1, the source that the figure would choose, its
    top-1, and the regret, which is by how many percentage points the best source's top-1 is higher.
    """
    rows = []
    competing = cells[cells["source"] != "real"]
    for setting, group in competing.groupby(SETTING, sort=False):
        means = group.groupby("source", sort=False).mean(numeric_only=True)
        figures = {"judged": True, **HIGH_IS_GOOD}
        for figure, high_is_good in figures.items():
            known = means[means[figure].notna()]
            if known.empty:
                continue
            order = known[figure] if high_is_good else -known[figure]
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
