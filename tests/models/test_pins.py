"""Weights are those that model.json pins. The hub's cache is laid out here as huggingface_hub does it."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pipeline_lib.errors import InputError
from pipeline_lib.models.card import read_card, read_unpinned_card
from pipeline_lib.models.classifier import load_classifier
from tests.conftest import ROOT

NAME, COMMIT = "resnet18.tv_in1k", "0123456789abcdef0123456789abcdef01234567"
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A classifier whose weights are on the hub, not pinned."""
    folder = tmp_path / "classifiers/resnet18"
    folder.mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"timm": NAME, "arguments": TINY, "num_classes": 1000}))
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The hub's cache, as after a download of the main branch."""
    torch.manual_seed(1)
    repository = tmp_path / "hub" / f"models--timm--{NAME}"
    snapshot, blob = repository / "snapshots" / COMMIT, repository / "blobs" / "weights"
    for part in (snapshot, blob.parent, repository / "refs"):
        part.mkdir(parents=True)
    save_file(timm.create_model("resnet18", **TINY).state_dict(), blob)
    (snapshot / "model.safetensors").symlink_to(blob)
    (repository / "refs/main").write_text(COMMIT)
    return tmp_path / "hub"


def offline(hub: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


LOAD = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from pipeline_lib.errors import exit_code
from pipeline_lib.models.classifier import load_classifier

def load(folder):
    save_file(load_classifier(folder).network.state_dict(), folder / "loaded.safetensors")

sys.exit(max(exit_code(lambda: load(Path(name))) for name in sys.argv[1:]))
"""


def test_pin_writes_commit_and_digest_and_these_weights_are_loaded(folder: Path, hub: Path, tmp_path: Path) -> None:
    done = offline(hub, "-m", "pipeline_lib", "pin", str(folder))
    assert done.returncode == 0, done.stderr
    blob = hub / f"models--timm--{NAME}/blobs/weights"
    card = json.loads((folder / "model.json").read_text())
    digest = hashlib.sha256(blob.read_bytes()).hexdigest()
    assert card == {"timm": NAME, "arguments": TINY, "num_classes": 1000, "revision": COMMIT, "sha256": digest}
    assert read_card(folder).revision == COMMIT

    loaded = offline(hub, "-c", LOAD, str(folder))
    assert loaded.returncode == 0, loaded.stderr
    expected, found = load_file(blob), load_file(folder / "loaded.safetensors")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    again = offline(hub, "-m", "pipeline_lib", "pin", str(folder))
    assert again.returncode == 0 and "is pinned" in again.stdout

    (folder / "model.json").write_text(json.dumps({**card, "num_classes": 10}))
    refused = offline(hub, "-c", LOAD, str(folder))
    assert refused.returncode == 2
    assert "`num_classes` is 10, but the hub's weights of 'resnet18.tv_in1k' are for 1000 classes" in refused.stderr
    (folder / "model.json").write_text(json.dumps(card))

    weights = bytearray(blob.read_bytes())
    weights[-1] ^= 1
    blob.write_bytes(weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.json").write_text(json.dumps({**card, "revision": "f" * 40}))
    refused = offline(hub, "-c", LOAD, str(folder), str(elsewhere))
    assert refused.returncode == 2
    altered, absent = refused.stderr.splitlines()
    assert f"expected the weights with SHA-256 {digest[:12]}, found" in altered
    assert f"timm/{NAME} at {'f' * 40}: cannot fetch model.safetensors" in absent


def test_pin_without_a_hub(folder: Path, tmp_path: Path) -> None:
    before = (folder / "model.json").read_bytes()
    done = offline(tmp_path / "empty", "-m", "pipeline_lib", "pin", str(folder))
    assert done.returncode == 2
    assert f"timm/{NAME} at its main branch: cannot fetch" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (folder / "model.json").read_bytes() == before
    (folder / "model.json").write_text(json.dumps({"timm": "resnet18.nobody", "num_classes": 1000}))
    done = offline(tmp_path / "empty", "-m", "pipeline_lib", "pin", str(folder))
    assert done.returncode == 2
    assert "resnet18.nobody" in done.stderr


def test_pin_of_weights_that_lie_beside_their_card(workspace: Path, tmp_path: Path) -> None:
    folder = workspace / "world/classifiers/resnet"
    whole = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({key: value for key, value in whole.items() if key != "sha256"}))
    with pytest.raises(InputError, match="python -m pipeline_lib pin"):
        load_classifier(folder)
    assert offline(tmp_path / "empty", "-m", "pipeline_lib", "pin", str(folder)).returncode == 0
    assert json.loads((folder / "model.json").read_text()) == whole
    load_classifier(folder)


@pytest.mark.parametrize(
    "command",
    [
        ("calibrate", "noise", "resnet18", "--images", "noise"),
        ("distil", "resnet18"),
        ("reconstruct", "noise", "resnet18", "w4a4"),
        ("evaluate_float", "resnet18"),
    ],
)
def test_stages_refuse_weights_that_are_not_pinned(
    command: tuple[str, ...],
    folder: Path,
    workspace: Path,
    stage: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(folder, workspace / "world/classifiers/resnet18")
    calibration = workspace / "data/calibration/noise-resnet18"
    if command[0] == "reconstruct":
        assert stage("calibrate", "noise", "resnet", "--images", "noise") == 0
        (workspace / "data/calibration/noise-resnet").rename(calibration)
    capsys.readouterr()
    assert stage(*command) == 2
    said = capsys.readouterr().err
    assert "`python -m pipeline_lib pin world/classifiers/resnet18`" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("key", "value"), [("revision", "main"), ("revision", "F" * 40), ("sha256", "0" * 40)])
def test_what_is_no_pin(folder: Path, key: str, value: str) -> None:
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "sha256": "0" * 64, key: value}))
    with pytest.raises(InputError, match=f"`{key}` is '{value}'"):
        read_card(folder)


def test_the_shipped_cards_of_imagenet_are_not_pinned() -> None:
    """Nobody here could download the weights; the first `pin` changes this, and then its page."""
    cards = [read_unpinned_card(path.parent) for path in ROOT.glob("data/imagenet/classifiers/*/model.json")]
    assert len(cards) == 5
    assert {(card.revision, card.sha256) for card in cards} == {(None, None)}
    assert "not pinned" in (ROOT / "data/imagenet/README.md").read_text()
