"""Bad input to any stage: one clear line, exit code 2, no half-written output."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.artifacts.records import write_lines
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.synthesize import Synthesis
from tests.conftest import edit_params, write_idx

Stage = Callable[..., int]
OUTS = ("prompts", "synthetic", "calibration", "quantized", "evaluation", "provenance")


@pytest.fixture
def refused(workspace: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def check(said: str, *command: str) -> None:
        before = {p: p.stat().st_mtime_ns for out in OUTS for p in (workspace / "data" / out).rglob("*")}
        capsys.readouterr()
        assert stage(*command) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert said in lines[0]
        after = {p: p.stat().st_mtime_ns for out in OUTS for p in (workspace / "data" / out).rglob("*")}
        written = [p for p, time in after.items() if p.is_file() and before.get(p) != time]
        assert not written

    return check


@pytest.fixture
def rendered(workspace: Path, stage: Stage) -> Path:
    assert stage("prompts", "single") == 0
    assert stage("synthesize", "single") == 0
    return workspace / "data/synthetic/single"


def calibrated(stage: Stage, model: str = "resnet") -> None:
    assert stage("calibrate", "noise", model, "--images", "noise") == 0


def test_unknown_and_mistyped_params(workspace: Path, refused: Callable[..., None]) -> None:
    edit_params(workspace / "params.yaml", **{"prompts.single.cuont": 5})
    refused("unknown key `prompts.single.cuont`", "prompts", "single")
    edit_params(workspace / "params.yaml", **{"synthesize.steps": "many"})
    refused("`synthesize.steps` is 'many'", "synthesize", "single")
    refused("no key `prompts.absent`", "prompts", "absent")


def test_missing_class(workspace: Path, refused: Callable[..., None]) -> None:
    classes = workspace / "data/fashion/classes.csv"
    text = classes.read_text()
    classes.write_text("\n".join(line for line in text.splitlines() if "coat" not in line))
    refused("expected class index 4", "prompts", "single")


def test_absent_and_incomplete_generator(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    assert stage("prompts", "single") == 0
    (workspace / "world/generator/unet/diffusion_pytorch_model.safetensors").unlink()
    refused("cannot load the generator", "synthesize", "single")
    shutil.rmtree(workspace / "world/generator/unet")
    refused("unet/, which is absent", "synthesize", "single")
    shutil.rmtree(workspace / "world/generator")
    refused("no generator here", "synthesize", "single")


def test_unknown_timm_model(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    card = workspace / "world/classifiers/resnet/model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "timm": "resnet81"}))
    refused("timm has no model 'resnet81'", "reconstruct", "noise", "resnet", "w2a4")
    refused("no classifier here", "calibrate", "noise", "absent", "--images", "noise")


def test_checkpoint_of_another_shape_and_altered(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    folder = workspace / "world/classifiers/resnet"
    card = json.loads((folder / "model.json").read_text())
    wider = {**card, "arguments": {**card["arguments"], "channels": [8, 8, 16, 32]}}
    (folder / "model.json").write_text(json.dumps(wider))
    refused("the network of model.json has", "reconstruct", "noise", "resnet", "w2a4")
    (folder / "model.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    refused("expected the weights with SHA-256 000000000000", "reconstruct", "noise", "resnet", "w2a4")


def test_truncated_altered_and_missing_shard(rendered: Path, refused: Callable[..., None]) -> None:
    shard = rendered / "000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    refused("000001.tar: truncated or damaged shard", "calibrate", "single", "resnet", "--images", "rendered")
    altered = bytearray(whole)
    altered[whole.index(b"IDAT") + 9] ^= 1
    shard.write_bytes(altered)
    refused("was altered", "calibrate", "single", "resnet", "--images", "rendered")
    (rendered / "000002.tar").rename(shard)
    refused("is not what", "calibrate", "single", "resnet", "--images", "rendered")
    shard.unlink()
    refused("shard not found", "calibrate", "single", "resnet", "--images", "rendered")


def test_fewer_images_than_asked_for(workspace: Path, rendered: Path, refused: Callable[..., None]) -> None:
    edit_params(workspace / "params.yaml", **{"calibrate.count": 25})
    refused("asked for 25 images", "calibrate", "single", "resnet", "--images", "rendered")
    refused("asked for 25 images", "calibrate", "real", "resnet", "--images", "real")


def test_all_held_out(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    edit_params(workspace / "params.yaml", **{"reconstruct.held_out": 24})
    refused("24 images, of which `reconstruct.held_out` keeps 24", "reconstruct", "noise", "resnet", "w2a4")


def test_calibration_set_of_another_network(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    shutil.copytree(workspace / "data/calibration/noise-resnet", workspace / "data/calibration/noise-vit")
    refused("expected images of 16x16", "reconstruct", "noise", "vit", "w2a4")


def test_empty_absent_and_foreign_test_set(workspace: Path, refused: Callable[..., None]) -> None:
    test = workspace / "world/test"
    write_idx(test / "labels-idx1-ubyte.gz", np.arange(40) % 11)
    refused("label 10, expected those of 10 classes: 0 to 9", "evaluate_float", "resnet")
    (test / "images-idx3-ubyte.gz").write_bytes(b"not gzip")
    refused("not a whole gzipped idx file", "evaluate_float", "resnet")
    for file in test.iterdir():
        file.unlink()
    refused("no labelled images", "evaluate_float", "resnet")
    test.rmdir()
    refused("expected a folder of labelled images, found nothing", "evaluate_float", "resnet")


def test_classes_that_do_not_fit_the_network(workspace: Path, refused: Callable[..., None]) -> None:
    classes = workspace / "data/fashion/classes.csv"
    classes.write_text("\n".join(classes.read_text().splitlines()[:-1]) + "\n")
    refused("a network of 10 classes, but `task.classes` lists 9", "evaluate_float", "resnet")


def test_two_runs_on_one_work_directory(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    assert stage("prompts", "single") == 0
    prompts, params, runtime = (
        Path("data/prompts/single.jsonl"),
        read(Synthesize, "synthesize"),
        read(Runtime, "runtime"),
    )
    pixels = Synthesis("single", prompts, Path("world/generator"), params, runtime).pixels
    with WorkDirectory.locked("synthesize", pixels):
        refused("another run is at work here", "synthesize", "single")
        refused("another run is at work here", "synthesize", "single", "--work-only", "--shards", "0-1")
    with WorkDirectory.locked("synthesize", pixels, part="0-1"):
        refused("another run is at work here", "synthesize", "single")
        assert stage("synthesize", "single", "--work-only", "--shards", "2-3") == 0
    refused("--work-only goes with --shards", "synthesize", "single", "--shards", "0-1")
    refused("--work-only goes with --shards", "synthesize", "single", "--work-only", "--shards", "first")


def test_usage(stage: Stage) -> None:
    assert stage("prompts") == 2
    assert stage("prompts", "--help") == 0


def test_no_prompts(workspace: Path, refused: Callable[..., None]) -> None:
    refused("single.jsonl: not found", "synthesize", "single")
    write_lines(workspace / "data/prompts/single.jsonl", [])
    refused("no prompts", "synthesize", "single")
