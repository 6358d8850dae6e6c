"""A study by a real `dvc repro`."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

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
        **{"study.world": "domains", "study.baseline": "noise", "study.axes.comparison": ["comparison"]},
        **sizes,
    )
    return clone


def test_only_what_changed_runs_again(clone: Path) -> None:
    assert STUDY | {"compare@comparison"} <= repro(clone)
    comparisons = pd.read_csv(clone / "data/comparison/comparisons.csv")
    assert set(comparisons["source"]) == {"mixup"}
    assert set(comparisons["precision"]) == {"w4a4", "w2a4", "all"}
    assert repro(clone) == set()
    edit_params(clone / "params.yaml", **{"study.resamples": 500})
    assert repro(clone) == {"compare@comparison"}
    edit_params(clone / "params.yaml", **{"study.cells.compared": 20})
    assert repro(clone) == STUDY | {"compare@comparison"}
