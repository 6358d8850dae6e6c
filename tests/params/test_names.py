"""Names become paths: few letters, none that is taken, no two cells with one path, no file of two kinds."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.errors import InputError
from pipeline_lib.params.everything import read_everything
from pipeline_lib.params.names import ARGUMENTS
from tests.conftest import ROOT, edit_params

TWO_CELLS = {"recipes": ["a", "a-b"], "models": ["c", "b-c"], "sources": ["a", "a-b"]}
A_RECIPE = {"strategy": "single", "reads": "data/fashion/classes.csv", "count": 4}
NO_NAMES = (
    "../up",
    "a/b",
    "a.b",
    "a b",
    "",
    "Mixup",
    "m\u0456xup",
    "-mixup",
    "mixup\u200b",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text())
    return copy


def refused(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read_everything(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def with_axes(path: Path, **axes: object) -> None:
    recipes = dict.fromkeys(axes.get("recipes", []), A_RECIPE)  # type: ignore[attr-defined]
    content = yaml.safe_load(path.read_text())
    content["prompts"] |= recipes
    content["axes"] |= axes
    path.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("name", [*NO_NAMES, "mixup\n"])
@pytest.mark.parametrize("key", ["axes.models", "axes.recipes", "axes.precisions", "axes.treatments", "axes.sources"])
def test_what_is_no_name(path: Path, key: str, name: str) -> None:
    edit_params(path, **{key: [name]})
    assert f"`{key}.0` is {name!r}; value error, expected a name of the letters a-z" in refused(path)


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize("section", ["prompts", "treatments", "precisions", "methods"])
def test_what_is_no_key(path: Path, section: str, name: str) -> None:
    content = yaml.safe_load(path.read_text())
    content[section][name] = next(iter(content[section].values()))
    path.write_text(yaml.safe_dump(content))
    assert f"is {name!r}; value error, expected a name of the letters a-z" in refused(path)


@pytest.mark.parametrize("name", ["noise", "distilled", "real", "float"])
@pytest.mark.parametrize("section", ["prompts", "treatments", "precisions"])
def test_taken_names(path: Path, section: str, name: str) -> None:
    content = yaml.safe_load(path.read_text())
    content[section][name] = next(iter(content[section].values()))
    path.write_text(yaml.safe_dump(content))
    assert f"is {name!r}; value error, expected another name; noise, distilled, real, float are taken" in refused(path)


@pytest.mark.parametrize("value", [1, True, 2.5, None])
def test_numbers_are_no_names(path: Path, value: object) -> None:
    edit_params(path, **{"axes.models": [value]})
    assert f"`axes.models.0` is {value!r}; input should be a valid string" in refused(path)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        (TWO_CELLS, "recipe a on model b-c and recipe a-b on model c would both be data/calibration/a-b-c"),
        (
            {"recipes": ["single", "single-filtered"], "treated": ["single"], "treatments": ["filtered"]},
            "recipe single-filtered and recipe single after treatment filtered would both be single-filtered",
        ),
        ({"models": ["vit", "vit"]}, "recipe single on model vit stands there twice"),
        (
            {"recipes": ["a"], "sources": ["a"], "models": ["b", "b-w4a4"], "precisions": ["w4a4", "w4a4-w4a4"]},
            "recipe a on model b-w4a4 at w4a4 would both be data/evaluation/a-b-w4a4-w4a4",
        ),
        (
            {"recipes": ["float-b"], "sources": ["float-b"], "models": ["c", "b-c-w4a4"], "precisions": ["w4a4"]},
            "the float network of model b-c-w4a4 would both be data/evaluation/float-b-c-w4a4",
        ),
    ],
)
def test_two_cells_with_one_path(path: Path, axes: dict[str, Any], said: str) -> None:
    with_axes(path, **axes)
    assert said in refused(path)


def test_two_cells_of_the_study_with_one_path(path: Path) -> None:
    with_axes(path, recipes=["a", "a-b", "single", "mixup"], sources=["a"])
    edit_params(path, **{"study.axes.recipes": ["a", "a-b"]})
    edit_params(path, **{"study.axes.domains": ["c", "b-c"], "study.axes.models": ["vit"]})
    assert "recipe a-b on model vit of domain c would both be data/study/a-b-c-vit" in refused(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("real", "data/fashion/generator"),
        ("real", "data/fashion/generator/real"),
        ("generator", "data/fashion/test"),
        ("labelled", "./data/fashion/../fashion/real/scenes.tar"),
        ("classifiers", "."),
    ],
)
def test_a_path_of_two_kinds(path: Path, key: str, value: str) -> None:
    edit_params(path, **{f"task.{key}": value})
    assert f"{key} ({value})" in refused(path)
    assert "overlap" in refused(path)


def test_a_link_to_the_real_images_is_no_generator(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    (path.parent / "photographs").mkdir()
    (path.parent / "generator").symlink_to("photographs")
    edit_params(path, **{"task.real": "photographs", "task.generator": "generator"})
    assert "generator (generator) and real (photographs) overlap" in refused(path)


STAGES = [
    ("prompts", "{}"),
    ("synthesize", "{}"),
    ("synthesize", "{}", "--work-only", "--shards", "0-1"),
    ("calibrate", "{}", "resnet", "--images", "rendered"),
    ("calibrate", "noise", "{}", "--images", "noise"),
    ("treat", "{}", "filtered", "resnet"),
    ("treat", "single", "{}", "resnet"),
    ("distil", "{}"),
    ("reconstruct", "noise", "resnet", "{}"),
    ("evaluate", "{}", "resnet", "w4a4"),
    ("evaluate_float", "{}"),
    ("study", "single", "{}", "resnet", "--images", "rendered"),
    ("study", "single", "scenes", "resnet", "--images", "rendered", "--treatment", "{}"),
    ("compare", "{}"),
]


@pytest.mark.parametrize("command", STAGES, ids=lambda command: " ".join(command))
def test_stages_refuse_what_doctor_refuses(
    command: tuple[str, ...], workspace: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part.format("../world") for part in command]
    assert stage(*arguments) == 2
    assert "is '../world'; expected a name of the letters a-z" in capsys.readouterr().err
    assert not (workspace / "data/provenance").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("prompts", "real"),
        ("synthesize", "real"),
        ("treat", "noise", "filtered", "resnet"),
        ("treat", "single", "float", "resnet"),
        ("reconstruct", "noise", "resnet", "distilled"),
    ],
)
def test_stages_refuse_taken_names(
    command: tuple[str, ...], workspace: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load((workspace / "params.yaml").read_text())
    content["prompts"]["real"] = content["prompts"]["single"]
    (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    assert stage(*command) == 2
    assert "are taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"axes.models": ["resnet", "no name"]}, "`axes.models.1` is 'no name'"),
        ({"axes.recipes": ["single", "mixup", "single-vit"], "axes.models": ["vit-w", "w"]}, "single-vit-w"),
        ({"task.real": "world/generator"}, "generator (world/generator) and real (world/generator) overlap"),
    ],
)
def test_stages_and_doctor_refuse_the_whole_file(
    edit: dict[str, Any],
    said: str,
    workspace: Path,
    stage: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    edit_params(workspace / "params.yaml", **edit)
    if "axes.recipes" in edit:
        content = yaml.safe_load((workspace / "params.yaml").read_text())
        content["prompts"]["single-vit"] = content["prompts"]["single"]
        (workspace / "params.yaml").write_text(yaml.safe_dump(content))
    assert stage("prompts", "single") == 2
    from_stage = capsys.readouterr().err
    assert said in from_stage
    assert not (workspace / "data/prompts").exists()
    doctor = CliRunner().invoke(app, ["doctor"])
    assert doctor.exit_code == 2
    assert doctor.stderr == from_stage


def test_every_text_that_a_stage_takes_is_checked() -> None:
    """But for the range of shards, whose form the stage checks."""
    for script in ROOT.glob("stages/[a-z]*.py"):
        parameters = inspect.signature(importlib.import_module(f"stages.{script.stem}").main).parameters.values()
        texts = {parameter.name for parameter in parameters if get_args(parameter.annotation)[0] is str}
        assert texts - {"shards"} <= ARGUMENTS.keys(), script
