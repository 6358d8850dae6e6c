"""`dvc plots show` and `dvc metrics show` on a finished pipeline, and the artifacts that it declares."""

import json
from pathlib import Path

import pandas as pd
from dvc.repo import Repo

from tests.pipeline.conftest import run


def test_plots_show_the_leaderboard_and_the_curves(finished: Path) -> None:
    shown = json.loads(run(finished, "dvc", "plots", "show", "--json"))["data"]
    tables = {name: pd.DataFrame(plot["content"]["data"]["values"]) for name, (plot,) in shown.items()}
    accuracy = tables["accuracy of the reconstructed networks"]
    expected = pd.read_csv(finished / "data/report/leaderboard.csv")
    assert accuracy["top1"].astype(float).tolist() == expected["top1"].tolist()
    for name in ("gradient norm along reconstruction", "loss along reconstruction"):
        assert set(tables[name]["source"]) == {"noise", "mixup"}
    assert "<DVC_METRIC" not in json.dumps([plot["content"] for (plot,) in shown.values()])


def test_metrics_show_the_accuracies(finished: Path) -> None:
    shown = json.loads(run(finished, "dvc", "metrics", "show", "--json"))[""]["data"]["data/report/metrics.json"][
        "data"
    ]
    rows = pd.read_csv(finished / "data/report/leaderboard.csv")
    top1 = {(row.precision, row.source): row.top1 for row in rows[rows["method"] != "nearest"].itertuples()}
    expected: dict[str, object] = {"float": top1["float", "-"]}
    for precision in ("w4a4", "w2a4"):
        expected[precision] = {source: top1[precision, source] for source in ("noise", "mixup")}
    assert shown == {"resnet": expected}


def test_artifacts_are_the_folders_of_datasets_and_of_checkpoints(finished: Path) -> None:
    (artifacts,) = Repo(str(finished)).artifacts.read().values()
    types = {artifact.path: artifact.type for artifact in artifacts.values()}
    assert types == {"data/synthetic": "dataset", "data/quantized": "model"}
    assert all((finished / artifact.path).is_dir() for artifact in artifacts.values())
    assert all(artifact.desc and artifact.labels for artifact in artifacts.values())
