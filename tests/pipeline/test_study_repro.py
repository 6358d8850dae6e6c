"""A study by a real `dvc repro`."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from tests.conftest import edit_params
from tests.pipeline.conftest import repro

STUDY = {"study@mixup-scenes-resnet", "study-baseline@noise-scenes-resnet"}


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "clone", symlinks=True)
    clone, world = tmp_path / "clone", tmp_path / "clone/domains"
    shutil.copytree(clone / "world/classifiers", world / "classifiers/scenes")
    shutil.copytree(clone / "world/test", world / "test/scenes")
    (world / "real").mkdir()
    shutil.copy(clone / "world/real.tar", world / "real/scenes.tar")
    axes = {"recipes": ["mixup"], "baselines": ["noise"], "domains": ["scenes"], "models": ["resnet"]}
    cells = {"replicates": 2, "images": 8, "block": 9, "judges": ["mixup"], "judge_images": 6, "compared": 30}
    sizes = {"reconstruct.held_out": 2, "reconstruct.range_images": 4, "reconstruct.batch_size": 3}
    edit_params(
        clone / "params.yaml",
        **{f"study.axes.{name}": values for name, values in axes.items()},
        **{f"study.cells.{name}": value for name, value in cells.items()},
        **{"study.world": "domains", "study.axes.against": ["noise"]},
        **sizes,
    )
    return clone


def test_only_what_changed_runs_again_and_the_audit_finds_no_fault(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone)
    assert STUDY | {"compare@noise"} <= repro(clone)
    comparisons = pd.read_csv(clone / "data/comparison/noise/comparisons.csv")
    assert set(comparisons["source"]) == {"mixup"}
    assert set(comparisons["precision"]) == {"w4a4", "w2a4", "all"}
    result = CliRunner().invoke(app, ["audit", "--json"], catch_exceptions=False)
    checks = json.loads(result.stdout)["checks"]
    assert not [problem for check in checks for problem in check["problems"] if problem["status"] == "FAIL"]
    assert repro(clone) == set()
    edit_params(clone / "params.yaml", **{"study.resamples": 500})
    assert repro(clone) == {"compare@noise"}
    edit_params(clone / "params.yaml", **{"study.cells.compared": 20})
    assert repro(clone) == STUDY | {"compare@noise"}
