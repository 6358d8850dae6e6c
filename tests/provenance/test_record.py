"""What a stage records of itself."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline_lib.artifacts.files import dvc_digest
from tests.provenance.conftest import Run, edit

RECORD = Path("data/provenance/prompts/single.json")


def test_inputs_parameters_command_and_code(project: Path, run: Run) -> None:
    assert run(OMP_NUM_THREADS="1", TORCH_HOME="/nowhere", HARMLESS="x").returncode == 0
    record = json.loads(RECORD.read_text())
    assert record["format"] == 2
    assert record["dvc_stage"] == "prompts@single"
    assert record["cmd"] == "python -m stages.prompts single"
    classes, generator = Path("data/fashion/classes.csv"), Path("world/generator")
    assert record["inputs"] == {
        str(classes): {"digest": dvc_digest(classes), "kind": "text"},
        str(generator): {"digest": dvc_digest(generator), "kind": "generator weights"},
    }
    params = yaml.safe_load(Path("params.yaml").read_text())
    assert record["params"] == {"prompts.single": params["prompts"]["single"], "task": params["task"]}
    assert record["code"]["stages/prompts.py"] == hashlib.md5(Path("stages/prompts.py").read_bytes()).hexdigest()
    inits = {"pipeline_lib/__init__.py", "stages/__init__.py", "pipeline_lib/prompts/__init__.py"}
    assert inits <= set(record["code"])
    assert record["foreign_code"] == []
    assert record["sys_path"][0] == str(project)
    assert {"OMP_NUM_THREADS", "TORCH_HOME"} <= set(record["environment"]) and "HARMLESS" not in record["environment"]
    assert "torch" not in record and "operators" not in record, "neither is loaded"


def test_without_dvc_yaml_there_is_no_stage_of_it(project: Path, run: Run) -> None:
    Path("dvc.yaml").unlink()
    assert run().returncode == 0
    record = json.loads(RECORD.read_text())
    assert record["dvc_stage"] is None
    assert record["cmd"] == "python -m stages.prompts single"


def test_torch_and_operators_where_they_are_loaded(workspace: Path, stage: Callable[..., int]) -> None:
    assert stage("calibrate", "noise", "resnet", "--images", "noise") == 0
    assert stage("reconstruct", "noise", "resnet", "w4a4") == 0
    record = json.loads((workspace / "data/provenance/reconstruct/noise-resnet-w4a4.json").read_text())
    assert record["torch"]["threads"] == 1
    assert len(record["operators"]["cpu"]) == 64
    kinds = {path: entry["kind"] for path, entry in record["inputs"].items()}
    assert kinds == {
        "data/calibration/noise-resnet": "made",
        "world/classifiers/resnet": "classifier weights",
        "data/fashion/classes.csv": "text",
    }
    assert "calibrate" not in record["params"], "which the stage before read in this process"


def test_a_recipe_called_real_is_rendered_images(workspace: Path, stage: Callable[..., int]) -> None:
    assert stage("prompts", "single") == 0 and stage("synthesize", "single") == 0
    shutil.move("data/synthetic/single", "data/synthetic/real")
    record = workspace / "data/provenance/calibrate/real-resnet.json"
    for images, kind in (("rendered", ("data/synthetic/real", "made")), ("real", ("world/real.tar", "real images"))):
        assert stage("calibrate", "real", "resnet", "--images", images) == 0
        found = {path: entry["kind"] for path, entry in json.loads(record.read_text())["inputs"].items()}
        assert found == {"world/classifiers/resnet": "classifier weights", kind[0]: kind[1]}
    assert stage("calibrate", "real", "resnet") == 2, "the kind has no default"


COMMAND = "cmd: python -m stages.prompts ${key}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"${task.generator}", "${item.reads}"',
            '"${item.reads}"',
            "prompts@single reads world/generator, which its deps",
        ),
        (COMMAND, "cmd: true && python -m stages.prompts ${key}", "found none"),
        (COMMAND, "cmd: python -m stages.prompts single", "found prompts@mixup and prompts@single"),
    ],
)
def test_what_dvc_yaml_does_not_declare_does_not_run(
    project: Path, refused: Callable[..., None], old: str, new: str, said: str
) -> None:
    edit(project / "dvc.yaml", old, new)
    refused(said)


def test_an_absent_input(project: Path, refused: Callable[..., None]) -> None:
    shutil.rmtree("world/generator")
    refused("world/generator: not found", "prompts@single")


def test_code_of_another_project(project: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for folder in ("pipeline_lib", "stages"):
        shutil.move(folder, elsewhere)
    result = run(PYTHONPATH=str(elsewhere))
    assert result.returncode == 2
    assert f"{elsewhere}: prompts@single runs the code from here" in result.stderr
