"""Random edits of a finished pipeline: whatever is done to it, real images upstream are never reported as none."""

import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from tests.conftest import edit_params
from tests.pipeline.conftest import commit, repro, run

REAL, PLANTED = "data/quantized/real-resnet-w4a4", "data/quantized/mixup-resnet-w4a4"
Edit = Callable[[random.Random], None]


@pytest.fixture(scope="module")
def with_real_images(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished pipeline, and a network that was calibrated on real images."""
    clone = Path(shutil.copytree(finished, tmp_path_factory.mktemp("verdict") / "pristine", symlinks=True))
    axes = {"axes.real": ["real"], "axes.sources": ["noise", "mixup", "real"], "axes.precisions": ["w4a4"]}
    edit_params(clone / "params.yaml", **axes)
    repro(clone)
    commit(clone, "with real images")
    return clone


def edit_yaml(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    content = yaml.load(Path(path).read_text())
    change(content)
    with Path(path).open("w") as file:
        yaml.dump(content, file)


def some(rng: random.Random, values: Any) -> Any:
    return rng.choice(sorted(values, key=str))


def change_a_task_path(rng: random.Random) -> None:
    key = some(rng, ["real", "labelled", "classes", "generator", "classifiers"])
    value = some(rng, ["world/elsewhere", "world/real.tar", "world", "data/quantized", "world/generator", "."])
    edit_params(Path("params.yaml"), **{f"task.{key}": value})


def change_the_axes(rng: random.Random) -> None:
    axis = some(rng, ["real", "noise", "recipes", "sources", "models", "precisions"])
    value = some(rng, [[], ["real"], ["mixup"], ["noise", "real"], ["w2a4"], ["resnet"]])
    edit_params(Path("params.yaml"), **{f"axes.{axis}": value})


def move_the_real_images(rng: random.Random) -> None:
    source = Path("world/real.tar")
    if source.exists():
        source.rename(some(rng, ["world/synthetic.tar", "world/generator/images.tar", "data/fashion/classes.tar"]))


def overwrite_a_source(rng: random.Random) -> None:
    path = Path(some(rng, ["world/real.tar", "data/fashion/classes.csv", "world/classifiers/resnet/model.json"]))
    path.write_bytes(rng.randbytes(100))


def drop_a_dependency_from_dvc_yaml(rng: random.Random) -> None:
    def change(content: dict[str, Any]) -> None:
        stage = content["stages"][some(rng, ["calibrate-real", "reconstruct", "calibrate"])]
        stage["deps"] = [dep for dep in stage["deps"] if rng.random() < 0.7]

    edit_yaml("dvc.yaml", change)


def change_a_command(rng: random.Random) -> None:
    def change(content: dict[str, Any]) -> None:
        stage = content["stages"][some(rng, ["calibrate-real", "reconstruct", "calibrate", "calibrate-noise"])]
        stage["cmd"] = str(stage["cmd"]).replace(
            *some(rng, [("real", "rendered"), ("calibrate", "treat"), (" ", "  ")])
        )

    edit_yaml("dvc.yaml", change)


def remove_a_stage_from_dvc_yaml(rng: random.Random) -> None:
    edit_yaml("dvc.yaml", lambda content: content["stages"].pop(some(rng, content["stages"])))


def remove_a_run_from_the_lock(rng: random.Random) -> None:
    edit_yaml("dvc.lock", lambda content: content["stages"].pop(some(rng, content["stages"])))


def remove_a_dependency_from_the_lock(rng: random.Random) -> None:
    def change(content: dict[str, Any]) -> None:
        entry = content["stages"][some(rng, [name for name, run in content["stages"].items() if run.get("deps")])]
        entry["deps"].remove(some(rng, entry["deps"]))

    edit_yaml("dvc.lock", change)


def rename_a_path_in_the_lock(rng: random.Random) -> None:
    def change(content: dict[str, Any]) -> None:
        entry = content["stages"][some(rng, content["stages"])]
        record = some(rng, entry["deps"] + entry["outs"])
        record["path"] = some(rng, ["world/generator", "data/calibration/noise-resnet", "data/fashion/classes.csv"])

    edit_yaml("dvc.lock", change)


def swap_two_runs_of_the_lock(rng: random.Random) -> None:
    def change(content: dict[str, Any]) -> None:
        one, other = rng.sample(sorted(content["stages"]), 2)
        content["stages"][one], content["stages"][other] = content["stages"][other], content["stages"][one]

    edit_yaml("dvc.lock", change)


def forget_a_record(rng: random.Random) -> None:
    records = sorted(Path("data/provenance").glob("*/*.json"))
    if records:
        some(rng, records).unlink()


def commit_by_hand(rng: random.Random) -> None:
    stage = some(rng, ["calibrate-real@real-resnet", "reconstruct@real-resnet-w4a4", "calibrate@mixup-resnet"])
    dvc("commit", "-f", stage)


def check_out(rng: random.Random) -> None:
    dvc("checkout", *some(rng, [["--force"], ["--force", "--relink"]]))


def dvc(*arguments: str) -> None:
    """Whether DVC can do it after what was done before does not matter."""
    with suppress(AssertionError):
        run(Path(), "dvc", *arguments)


EDITS: list[Edit] = [
    change_a_task_path,
    change_the_axes,
    move_the_real_images,
    overwrite_a_source,
    drop_a_dependency_from_dvc_yaml,
    change_a_command,
    remove_a_stage_from_dvc_yaml,
    remove_a_run_from_the_lock,
    remove_a_dependency_from_the_lock,
    rename_a_path_in_the_lock,
    swap_two_runs_of_the_lock,
    forget_a_record,
    commit_by_hand,
    check_out,
]


def plant_real_images() -> None:
    """Calibration images of a data-free network are replaced by others, and DVC is told that this is right."""
    path = Path("data/calibration/mixup-resnet/images.npy")
    images = np.load(path)
    path.unlink()
    np.save(path, np.random.default_rng(1).integers(0, 256, images.shape, dtype=np.uint8))
    dvc("commit", "-f", "calibrate@mixup-resnet")


def verdicts() -> dict[str, str]:
    """By checkpoint; empty where the audit refuses to say anything."""
    result = CliRunner().invoke(app, ["audit", "--json"])
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    if result.exit_code == 2:
        return {}
    return {verdict["checkpoint"]: verdict["text"] for verdict in json.loads(result.stdout)["real_images"]}


def test_an_untouched_pipeline_tells_its_networks_apart(
    with_real_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_real_images)
    found = verdicts()
    assert found[PLANTED] == "none"
    assert found[REAL].startswith("real") and "world/real.tar" in found[REAL]


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(st.sampled_from(EDITS), min_size=1, max_size=3), seed=st.integers(0, 1 << 16), plant=st.booleans()
)
def test_no_edit_makes_real_images_none(
    with_real_images: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], seed: int, plant: bool
) -> None:
    clone = tmp_path_factory.mktemp("edited") / "clone"
    shutil.copytree(with_real_images, clone, symlinks=True)
    before, rng = Path.cwd(), random.Random(seed)
    os.chdir(clone)
    try:
        if plant:
            plant_real_images()
        for edit in edits:
            edit(rng)
        found = verdicts()
        assert found.get(REAL) != "none"
        if plant:
            assert found.get(PLANTED) != "none"
    finally:
        os.chdir(before)
        shutil.rmtree(clone)
