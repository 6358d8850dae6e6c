"""A small study through its real stages."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.conftest import ROOT, edit_params

AXES = {"recipes": ["single", "mixup"], "baselines": ["noise", "real"], "domains": ["scenes"], "models": ["resnet"]}
CELLS = {"replicates": 2, "images": 8, "block": 9, "judge_images": 6, "compared": 30}
FILES = {"cells.csv", "sets.csv", "classes.csv", "units.csv", "predictions.csv"}


@pytest.fixture
def study(workspace: Path, stage: Callable[..., int]) -> Path:
    world = workspace / "study-world"
    shutil.copytree(workspace / "world/classifiers", world / "classifiers/scenes")
    shutil.copytree(workspace / "world/test", world / "test/scenes")
    (world / "real").mkdir()
    shutil.copy(workspace / "world/real.tar", world / "real/scenes.tar")
    changes = {f"study.axes.{key}": value for key, value in AXES.items()}
    changes |= {f"study.cells.{key}": value for key, value in CELLS.items()}
    sizes = {"reconstruct.held_out": 2, "reconstruct.range_images": 4, "reconstruct.batch_size": 3}
    edit_params(workspace / "params.yaml", **changes, **sizes, **{"study.world": "study-world"})
    for recipe in AXES["recipes"]:
        assert stage("prompts", recipe) == 0
        assert stage("synthesize", recipe) == 0
    return workspace


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_cells_and_comparison(study: Path, stage: Callable[..., int]) -> None:
    for source, images in (("single", "rendered"), ("mixup", "rendered"), ("noise", "noise")):
        assert stage("study", source, "scenes", "resnet", "--images", images) == 0
    assert stage("compare", "single") == 2, "the cells of real images are missing"
    assert stage("study", "real", "scenes", "resnet", "--images", "real") == 0
    cells = pd.read_csv(study / "data/study/mixup-scenes-resnet/cells.csv")
    assert set(files(study / "data/study/mixup-scenes-resnet")) == FILES
    assert {"agreement_single", "agreement_mixup"} < set(cells.columns)
    assert list(zip(cells["precision"], cells["replicate"], strict=True)) == [
        ("w4a4", 0), ("w2a4", 0), ("w4a4", 1), ("w2a4", 1)
    ]  # fmt: skip
    predictions = pd.read_csv(study / "data/study/mixup-scenes-resnet/predictions.csv")
    for row in cells.itertuples():
        right = predictions[f"{row.precision}-{row.replicate}"] == predictions["label"]
        assert row.top1 == pytest.approx(100 * right.mean(), abs=1e-3)
    assert pd.read_csv(study / "data/study/noise-scenes-resnet/cells.csv")["named_accuracy"].isna().all()

    assert stage("compare", "single") == 0
    means = pd.read_csv(study / "data/comparison/single/means.csv")
    assert sorted(means["source"].unique()) == ["mixup", "noise", "real", "single"]
    assert (means["replicates"] == 2).all()
    expected = cells.groupby("precision")["top1"].mean()
    of_mixup = means[means["source"] == "mixup"].set_index("precision")["top1"]
    assert of_mixup.to_dict() == pytest.approx(expected.to_dict(), rel=1e-4)
    comparisons = pd.read_csv(study / "data/comparison/single/comparisons.csv")
    assert set(comparisons["source"]) == {"mixup", "noise", "real"}
    assert (comparisons["p_adjusted"] >= comparisons["p"] - 1e-9).all()
    assert comparisons["mean"].between(comparisons["low"] - 1e-4, comparisons["high"] + 1e-4).all()
    ranking = pd.read_csv(study / "data/comparison/single/ranking.csv")
    assert not (ranking["chosen"] == "real").any(), "real images do not compete"
    assert (ranking["regret"] >= 0).all()


def test_a_killed_study_continues_at_the_next_cell_with_the_same_bytes(study: Path, stage: Callable[..., int]) -> None:
    assert stage("study", "mixup", "scenes", "resnet", "--images", "rendered") == 0
    out = study / "data/study/mixup-scenes-resnet"
    expected = files(out)
    shutil.rmtree(out)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stages.study", "mixup", "scenes", "resnet", "--images", "rendered"]
    process = subprocess.Popen(command, cwd=study, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list((study / ".work/study").glob("*/units/*-0.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    first = next((study / ".work/study").glob("*/units/w4a4-0.json"))
    finished = first.stat().st_mtime_ns
    began = time.time_ns()
    assert subprocess.run(command, cwd=study, env=environment, check=False).returncode == 0
    assert finished < began
    assert files(out) == expected


def test_replicates_have_images_of_their_own(study: Path, stage: Callable[..., int]) -> None:
    edit_params(study / "params.yaml", **{"study.cells.precisions": ["w4a4"], "study.cells.replicates": 3})
    assert stage("study", "single", "scenes", "resnet", "--images", "rendered") == 2, (
        "three blocks leave too few images to judge"
    )
    params = yaml.safe_load((study / "params.yaml").read_text())
    params["study"]["cells"].update(replicates=2, images=10)
    (study / "params.yaml").write_text(yaml.safe_dump(params))
    assert stage("study", "single", "scenes", "resnet", "--images", "rendered") == 2, (
        "a set does not fit into its block"
    )
    params["study"]["cells"].update(images=8)
    (study / "params.yaml").write_text(yaml.safe_dump(params))
    assert stage("study", "single", "scenes", "resnet", "--images", "rendered") == 0
    sets = pd.read_csv(study / "data/study/single-scenes-resnet/sets.csv")
    assert sets["kernel_distance"].nunique() == 2
    assert np.isfinite(sets["kernel_distance"]).all()


@pytest.mark.parametrize("judges", [[], ["mixup"], ["mixup", "single", "mixup3"]])
def test_any_number_of_judges(study: Path, stage: Callable[..., int], judges: list[str]) -> None:
    three = {"strategy": "mixup", "reads": "data/fashion/classes.csv", "count": 24, "classes_per_prompt": 3}
    cells = {"precisions": ["w4a4"], "replicates": 1, "judges": judges}
    changes = {f"study.cells.{key}": value for key, value in cells.items()}
    edit_params(
        study / "params.yaml",
        **changes,
        **{"prompts.mixup3": three, "study.axes.recipes": ["single", "mixup"], "study.axes.baselines": []},
    )
    if "mixup3" in judges:
        assert stage("prompts", "mixup3") == 0
        assert stage("synthesize", "mixup3") == 0
    for source in ("single", "mixup"):
        assert stage("study", source, "scenes", "resnet", "--images", "rendered") == 0
    columns = pd.read_csv(study / "data/study/mixup-scenes-resnet/cells.csv").columns
    assert {column for column in columns if column.startswith("agreement_")} == {f"agreement_{j}" for j in judges}
    assert stage("compare", "single") == 0
    ranking = pd.read_csv(study / "data/comparison/single/ranking.csv")
    assert ("judged" in set(ranking["figure"])) == bool(judges)
