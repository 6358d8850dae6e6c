"""The doctor says in seconds what a run would stumble over in hours."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.synthesis.generator import Generator
from tests.conftest import edit_params, make_classifier, write_idx
from tests.pictures.writing import put

Lines = dict[str, list[str]]  # by status


def consult() -> tuple[int, Lines]:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    found: Lines = {"OK": [], "WARN": [], "FAIL": []}
    for line in result.stdout.splitlines():
        status, _, text = line.partition(" ")
        if status in found:
            found[status].append(text.strip())
    return result.exit_code, found


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_sound_world(workspace: Path) -> None:
    before = files(workspace)
    code, found = consult()
    assert code == 0
    assert not found["FAIL"]
    text = "\n".join(found["OK"] + found["WARN"])
    for said in (
        "classes: data/fashion/classes.csv: 10 classes, 10 with a definition",
        "prompts.mixup: 24 prompts, such as 'a photo of",
        "generator: an image of 16x16 takes",
        "real: world/real.tar: 24 pictures",
        "labelled: world/test: 10 of 10 classes, 40 images",
        "resnet: images of 32x32, bicubic, crop_pct 1.0, mean [0.5, 0.5, 0.5]",
        "reconstructed as `vit` networks are",
        "resnet: float top-1",
        "time: rendering",
        "disk: up to",
    ):
        assert said in text
    assert any("are labels or preprocessing wrong?" in line for line in found["WARN"]), "the networks are untrained"
    assert files(workspace) == before


def remove(path: str) -> Callable[[Path], None]:
    def change(workspace: Path) -> None:
        target = workspace / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def params(**changes: object) -> Callable[[Path], None]:
    return lambda workspace: edit_params(workspace / "params.yaml", **changes)


def folders_that_are_no_classes(workspace: Path) -> None:
    put(workspace / "world/mine/images/x.png", 1)
    edit_params(workspace / "params.yaml", **{"task.labelled": "world/mine"})


def a_network_of_unknown_attention(workspace: Path) -> None:
    folder = workspace / "world/classifiers/resnet"
    shutil.rmtree(folder)
    make_classifier(folder, "efficientformer")
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "num_classes": 9}))


def labels_out_of_range(workspace: Path) -> None:
    write_idx(workspace / "world/test/labels-idx1-ubyte.gz", np.arange(40) % 11)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (remove("data/fashion/classes.csv"), "classes: data/fashion/classes.csv"),
        (remove("world/generator"), "generator: world/generator"),
        (remove("world/generator/unet"), "generator: world/generator"),
        (remove("world/classifiers/vit/model.safetensors"), "vit: world/classifiers/vit"),
        (remove("world/real.tar"), "real: world/real.tar"),
        (remove("world/test/labels-idx1-ubyte.gz"), "labelled: world/test"),
        (labels_out_of_range, "labelled: world/test: label 10"),
        (folders_that_are_no_classes, "labelled: world/mine: expected labels that are"),
        (a_network_of_unknown_attention, "resnet: world/classifiers/resnet"),
        (params(**{"runtime.device": "cuda"}), "resnet: params.yaml: `runtime.device` is cuda"),
        (params(**{"evaluate.fraction": 1e-9}), "labelled: no labelled image chosen; raise `evaluate.fraction`"),
        (params(**{"calibrate.count": 25}), "counts: params.yaml: `prompts.single.count` is 24, below"),
        (params(**{"reconstruct.held_out": 24}), "counts: params.yaml: `reconstruct.held_out` is 24"),
        (params(**{"synthesize.scheduler": "NoScheduler"}), "generator: params.yaml: `synthesize.scheduler`"),
        (params(**{"prompts.single.templates": ["a b " * 100 + "{}"]}), "prompts.single: params.yaml: 24 of 24"),
        (params(**{"axes.images": ["mine"], "images": {"mine": {"origin": "x"}}}), "images.mine: data/images/mine"),
    ],
)
def test_what_a_stage_would_refuse(workspace: Path, change: Callable[[Path], None], said: str) -> None:
    change(workspace)
    code, found = consult()
    assert code == 2
    assert any(line.startswith(said) for line in found["FAIL"]), found["FAIL"]


def test_a_link_that_leads_to_itself_hides_no_other_fault(workspace: Path) -> None:
    classes = workspace / "data/fashion/classes.csv"
    classes.unlink()
    classes.symlink_to(classes)
    remove("world/classifiers/vit/model.safetensors")(workspace)
    code, found = consult()
    assert code == 2
    assert [line.split(":")[0] for line in found["FAIL"]] == ["classes", "vit"]


def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the generator renders from now on."""
    counts: list[int] = []
    render = Generator.render

    def counted(self: Generator, samples: list, embeddings: object) -> object:
        counts.append(len(samples))
        return render(self, samples, embeddings)

    monkeypatch.setattr(Generator, "render", counted)
    return counts


@pytest.mark.parametrize(
    ("changes", "count", "said"),
    [
        ({"image_size": 32}, [1, 4], "an image of 32x32 takes"),
        ({"image_size": 40}, [], "rendered to try it, for that takes long: `synthesize` asks for 2 steps of 40"),
        ({"image_size": 8192}, [], "2 steps of 8192 pixels a side"),
        ({"steps": 1000}, [], "1000 steps of 16 pixels"),
    ],
)
def test_no_image_is_rendered_that_takes_long(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, changes: dict, count: list[int], said: str
) -> None:
    edit_params(workspace / "params.yaml", **{f"synthesize.{key}": value for key, value in changes.items()})
    counts = rendered(monkeypatch)
    code, found = consult()
    assert code == 0
    assert counts == count
    assert any(said in line for line in found["OK"]), found["OK"]


def test_an_image_that_takes_long_is_the_only_one(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.doctor.generator.PATIENCE", 0.0)
    counts = rendered(monkeypatch)
    assert consult()[0] == 0
    assert counts == [1]


def test_all_faults_are_told_at_once(workspace: Path) -> None:
    remove("world/classifiers/vit/model.safetensors")(workspace)
    remove("world/real.tar")(workspace)
    labels_out_of_range(workspace)
    code, found = consult()
    assert code == 2
    assert [line.split(":")[0] for line in found["FAIL"]] == ["real", "labelled", "vit"]
