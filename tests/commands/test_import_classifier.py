"""A folder from what training wrote: the network that was trained, or one line; never a half-written folder."""

import argparse
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.models.card import Card, read_card
from pipeline_lib.models.classifier import load_classifier
from tests.conftest import ROOT

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
OPTIONS = [
    "--size",
    "32",
    "--mean",
    "0.5,0.4,0.3",
    "--std",
    "0.2,0.2,0.2",
    "--crop-pct",
    "0.9",
    "--interpolation",
    "bilinear",
]
AS_GIVEN = {
    "input_size": [3, 32, 32],
    "interpolation": "bilinear",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.2, 0.2],
    "crop_pct": 0.9,
    "crop_mode": "center",
}


def network(**more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18", num_classes=10, **TINY, **more).eval()


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    done = CliRunner().invoke(app, ["import-classifier", *map(str, arguments)])
    out, err = capfd.readouterr()
    return done.exit_code, done.stdout + out, done.stderr + err


def options_of_tiny(file: Path, into: Path) -> list[object]:
    network = ["--timm", "resnet18", "--classes", 10, "--arguments", json.dumps(TINY)]
    return [file, *network, *OPTIONS, "--into", into]


def with_prefix(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def others(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


STATE = network().state_dict()
WRITTEN = {  # what a checkpoint holds, and what is said of it
    "plain.pth": (STATE, ""),
    "ordered.pt": (OrderedDict(STATE), ""),
    "pytorch_model.bin": (STATE, ""),
    "model.safetensors": (STATE, ""),
    "module.safetensors": (with_prefix("module.", STATE), "prefix 'module.' taken off 80 names"),
    "lightning.ckpt": (
        {"state_dict": with_prefix("model.", STATE) | {"loss.weight": torch.ones(3)}, "epoch": 3},
        "1 others are not used, first loss.weight",
    ),
    "compiled.pth": ({"model": with_prefix("_orig_mod.module.", STATE)}, "prefix '_orig_mod.module.' taken off"),
    "wrapped.pth": ({"state_dict": with_prefix("student.backbone.", STATE)}, "prefix 'student.backbone.' taken off"),
    "ema.pth.tar": (
        {
            "epoch": 3,
            "args": argparse.Namespace(lr=0.1),
            "metric": np.float64(0.5),
            "state_dict": others(STATE),
            "state_dict_ema": STATE,
        },
        "entry `state_dict_ema`, the moving average, not state_dict",
    ),
    "model_ema.pth": (
        {"model": others(STATE), "model_ema": with_prefix("module.", STATE) | {"n_averaged": torch.tensor(5)}},
        "entry `model_ema`, the moving average, not model",
    ),
    "model_and_ema.pth": ({"model": STATE, "ema": others(STATE)}, "entry `model`, not ema"),
    "nested.pth": ({"callbacks": {"EMA": {"state": STATE}}, "epoch": 3}, "entry `callbacks.EMA.state`"),
    "only_ema.pth": ({"ema": STATE, "discriminator": {"w": torch.ones(3)}}, "entry `ema`, the moving average"),
    "beside.pth": (STATE | {"ema": others(STATE)}, "the tensors that are in no entry, not ema"),
    "teacher.pth": (
        with_prefix("student.", STATE) | {"teacher.fc.weight": torch.ones(3)},
        "1 others are not used, first teacher.fc.weight",
    ),
    "half.pth": ({name: t.half() if t.is_floating_point() else t for name, t in STATE.items()}, "stored as float32"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_trained_network_comes_out(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content, said = WRITTEN[name]
    save = save_file if name.endswith(".safetensors") else torch.save
    save(content, tmp_path / name)
    code, out, err = run(capfd, *options_of_tiny(tmp_path / name, tmp_path / "mine"))
    assert code == 0, err
    assert said in out
    card = read_card(tmp_path / "mine")
    assert (card.timm, card.arguments, card.num_classes) == ("resnet18", TINY, 10)
    assert json.loads((tmp_path / "mine/model.json").read_text())["preprocessing"] == AS_GIVEN
    x = torch.randn(2, 3, 32, 32)
    expected = network()
    if name == "half.pth":
        expected.load_state_dict(content)
    assert torch.equal(load_classifier(tmp_path / "mine").network(x), expected(x))
    assert {file.name for file in (tmp_path / "mine").iterdir()} == {"model.json", "model.safetensors"}


def refused(capfd: pytest.CaptureFixture[str], into: Path, *arguments: object) -> str:
    before = sorted(into.parent.rglob("*"))
    code, out, err = run(capfd, *arguments)
    assert code == 2, out + err
    assert len(err.strip().splitlines()) == 1, err
    assert sorted(into.parent.rglob("*")) == before
    return err


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


class Dangerous:
    """What calls the system where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch called",)


class Trained(torch.nn.Linear):
    """A class of the user's own."""


def test_what_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "out/mine"
    (tmp_path / "out").mkdir()

    def said(content: object, name: str = "weights.pth", **changes: object) -> str:
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            torch.save(content, tmp_path / name)
        options = options_of_tiny(tmp_path / name, into)
        for option, value in changes.items():
            options[options.index(f"--{option}") + 1] = value
        return refused(capfd, into, *options)

    assert "names test_import_classifier.Trained, code that is not run here" in said(Trained(2, 2))
    assert "found 0 bytes of another kind" in said(b"")
    assert "found 16 bytes of another kind" in said(b"no pickle at all")
    assert "found a pickle of something else" in said(pickle.dumps({"fc.bias": [1.0]}))
    assert "`git lfs pull` fetches them" in said(POINTER)
    assert "`git lfs pull` fetches them" in said(POINTER, "pointer.safetensors")
    assert "not a whole safetensors file" in said(b"12345", "cut.safetensors")
    assert "found another name" in said(b"", "weights.h5")
    assert "found a dict of epoch" in said({"epoch": 3})
    assert "found Tensor" in said(torch.ones(3))
    assert "is for 10 classes, but the network for 9" in said(STATE, classes=9)
    not_finite = torch.eye(10, 16).where(torch.arange(16) > 0, torch.nan)
    assert "fc.weight has 10 values that are NaN" in said(STATE | {"fc.weight": not_finite})
    some = {name: tensor for name, tensor in STATE.items() if not name.startswith("layer4")}
    assert "18 of 80 tensors that the network needs are missing, first layer4.0.conv1.weight" in said(some)
    more = STATE | {"aux.weight": torch.ones(3)}
    assert "1 of 81 tensors are of no use to it, first aux.weight" in said(more)
    assert "conv1.weight: the network of model.json has" in said(STATE | {"conv1.weight": torch.ones(8, 3, 3, 3)})
    assert "conv1.weight is of torch.int8" in said(STATE | {"conv1.weight": torch.ones(8, 3, 7, 7, dtype=torch.int8)})
    assert "timm has no model 'resnet_18'" in said(STATE, timm="resnet_18")
    assert "Invalid pretrained tag (nobody)" in said(STATE, timm="resnet18.nobody")
    assert "expected values for pixels from 0 to 1" in said(STATE, mean="127,127,127")
    assert "`preprocessing.interpolation` is 'random'" in said(STATE, interpolation="random")
    assert "expected numbers with commas between" in said(STATE, std="a,b")
    assert "expected a JSON object" in said(STATE, arguments="[]")
    assert "--arguments: not a JSON object (Exceeds the limit" in said(STATE, arguments='{"a":1' + "0" * 5000 + "}")
    assert "--arguments: not a JSON object (nested too deeply)" in said(STATE, arguments="[" * 100_000)
    assert "timm cannot build 'resnet18'" in said(STATE, arguments='{"stair": 3}')
    assert "timm cannot build 'resnet18': " in said(STATE, arguments='{"output_stride": 0}')
    assert "is 0; input should be" in said(STATE, arguments='{"in_chans": 0}')
    assert "`num_classes` is 1000000000000" in said(STATE, classes=10**22)
    assert len(said(STATE, timm="x" * 5000)) < 500
    assert "fc.bias: the network of model.json has (10,), the checkpoint ()" in said(
        STATE | {"fc.bias": torch.tensor(1.0)}
    )
    assert "fc.bias is of torch.complex64" in said(STATE | {"fc.bias": torch.ones(10).cfloat()})
    assert "fc.weight has no plain values" in said(STATE | {"fc.weight": STATE["fc.weight"].to_sparse()})
    for name in ("absent.pth", "absent.safetensors"):
        assert f"{name}: not found" in refused(capfd, into, *options_of_tiny(tmp_path / name, into))
    assert "--timm: expected" in refused(capfd, into, "weights.pth", "--classes", 10, "--into", into)
    into.mkdir()
    (into / "notes.txt").write_text("mine")
    assert "expected a new folder" in said(STATE)


def test_a_pickle_that_would_run_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In either format of torch. Nobody is told to run it."""
    into = tmp_path / "out/mine"
    for zipped in (True, False):
        torch.save(STATE | {"x": Dangerous()}, tmp_path / "weights.pth", _use_new_zipfile_serialization=zipped)
        error = refused(capfd, into, *options_of_tiny(tmp_path / "weights.pth", into))
        assert "a pickle that names posix.system, code that is not run here" in error
        assert "weights_only" not in error
    assert not Path("called").exists()


def test_a_program_of_torchscript(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "out/mine"
    torch.jit.trace(network(), torch.ones(1, 3, 32, 32)).save(tmp_path / "weights.pt")
    assert "a program of TorchScript" in refused(capfd, into, *options_of_tiny(tmp_path / "weights.pt", into))


def test_a_byte_that_changed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, into = tmp_path / "weights.pth", tmp_path / "out/mine"
    torch.save(STATE, file)
    whole = file.read_bytes()
    values = STATE["layer4.0.conv2.weight"].numpy().tobytes()
    place = whole.index(values) + len(values) // 2
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "is not as it was written" in refused(capfd, into, *options_of_tiny(file, into))
    with zipfile.ZipFile(file, "w") as copy, zipfile.ZipFile(io.BytesIO(whole)) as archive:
        for info in archive.infolist():
            info.external_attr |= 0x10 if info.filename.endswith("/data/3") else 0
            copy.writestr(info, archive.read(info))
    assert "/data/3 in it is not as it was written" in refused(capfd, into, *options_of_tiny(file, into))
    file.write_bytes(whole[:-1000])
    assert "not a checkpoint of torch" in refused(capfd, into, *options_of_tiny(file, into))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (with_prefix("a.", STATE) | with_prefix("b.", others(STATE)), "under the prefixes 'a.', 'b.'"),
        (with_prefix("student.", STATE) | with_prefix("teacher.", others(STATE)), "'student.', 'teacher.'"),
        (STATE | with_prefix("ema.", others(STATE)), "under the prefixes '', 'ema.'"),
        ({"state_dict": with_prefix("a.", STATE) | with_prefix("b.", others(STATE))}, "prefixes 'a.', 'b.'"),
        ({"generator": STATE, "ema": others(STATE)}, "2 entries hold the whole network, generator, ema"),
        ({"nets": {"a": STATE, "b": with_prefix("module.", STATE)}}, "whole network, nets.a, nets.b"),
    ],
)
def test_several_networks_are_not_chosen_among(
    content: object, named: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "weights.pth")
    into = tmp_path / "out/mine"
    assert named in refused(capfd, into, *options_of_tiny(tmp_path / "weights.pth", into))


@pytest.mark.parametrize("name", ["ResNet 18", "R18", "a.b", "_x", "x" * 60, "\u00e9"])
def test_a_folder_that_the_axes_could_not_name(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    into = tmp_path / "out" / name
    assert "could not name this folder" in refused(capfd, into, *options_of_tiny(tmp_path / "weights.pth", into))


@pytest.mark.parametrize("target", ["nothing", "empty"])
def test_a_link_is_no_new_folder(target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    (tmp_path / "out/empty").mkdir(parents=True)
    into = tmp_path / "out/mine"
    into.symlink_to(target)
    assert "expected a new folder" in refused(capfd, into, *options_of_tiny(tmp_path / "weights.pth", into))


def test_timm_says_what_is_not_given(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(STATE, tmp_path / "weights.pth")
    common = [tmp_path / "weights.pth", "--classes", 10, "--arguments", json.dumps(TINY)]
    code, out, err = run(capfd, *common, "--timm", "resnet18.tv_in1k", "--size", 64, "--into", tmp_path / "mine")
    assert code == 0, err
    preprocessing = read_card(tmp_path / "mine").preprocessing
    assert preprocessing is not None
    assert (preprocessing.input_size, preprocessing.interpolation, preprocessing.crop_pct) == (
        [3, 64, 64],
        "bilinear",
        0.875,
    )
    assert "size as given, the rest as timm has it for resnet18.tv_in1k" in out


def test_a_grey_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(network(in_chans=1).state_dict(), tmp_path / "weights.pth")
    options = options_of_tiny(tmp_path / "weights.pth", tmp_path / "mine")
    options[options.index("--mean") + 1] = options[options.index("--std") + 1] = "0.5"
    code, _, err = run(capfd, *options)
    assert code == 0, err
    card = read_card(tmp_path / "mine")
    assert card.arguments == {**TINY, "in_chans": 1}
    assert card.preprocessing is not None and card.preprocessing.input_size == [1, 32, 32]
    torch.save(STATE, tmp_path / "weights.pth")
    options[options.index("--into") + 1] = tmp_path / "other"
    assert "the network of model.json has (64, 1, 7, 7)" in refused(capfd, tmp_path / "other", *options)


def test_a_vision_transformer_of_another_size_and_layout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Meta's names of ConvNeXt; and a ViT of 32 pixels, whose size becomes an argument."""
    arguments = {"depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]}
    torch.manual_seed(0)
    convnext = timm.create_model("convnext_atto", num_classes=10, **arguments).eval()
    renames = {"stem.": "downsample_layers.0.", "head.norm.": "norm.", "head.fc.": "head."}
    original = {}
    for name, tensor in convnext.state_dict().items():
        for new, old in renames.items():
            name = old + name.removeprefix(new) if name.startswith(new) else name
        if name.startswith("stages."):
            _, stage, rest = name.split(".", 2)
            name = f"stages.{stage}.{rest}" if rest.startswith("blocks") else f"downsample_layers.{stage}.{rest[11:]}"
            for new, old in (("blocks.", ""), ("conv_dw", "dwconv"), ("mlp.fc", "pwconv")):
                name = name.replace(new, old)
        original[name] = tensor
    torch.save({"model": with_prefix("module.", original)}, tmp_path / "weights.pth")
    common = ["--classes", 10, "--arguments", json.dumps(arguments), *OPTIONS, "--into"]
    code, out, err = run(capfd, tmp_path / "weights.pth", "--timm", "convnext_atto", *common, tmp_path / "convnext")
    assert code == 0, err
    assert "timm's filter of convnext_atto named" in out and "prefix 'module.'" in out
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(load_classifier(tmp_path / "convnext").network(x), convnext(x))

    arguments = {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 8}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, **arguments).eval()
    torch.save(vit.state_dict(), tmp_path / "weights.pth")
    common[3] = json.dumps(arguments)
    code, out, err = run(capfd, tmp_path / "weights.pth", "--timm", "vit_tiny_patch16_224", *common, tmp_path / "vit")
    assert code == 0, err
    assert read_card(tmp_path / "vit").arguments == {**arguments, "img_size": 32}
    assert torch.equal(load_classifier(tmp_path / "vit").network(x), vit(x))


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """The hub's cache with a repository as timm's push_to_hf_hub writes it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub/models--somebody--mine"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    timm.models.save_for_hf(network(), snapshot, model_args=TINY, safe_serialization=True)
    config = json.loads((snapshot / "config.json").read_text())
    config["pretrained_cfg"] |= {"input_size": [3, 32, 32], "mean": [0.5, 0.5, 0.5], "crop_pct": 0.8}
    (snapshot / "config.json").write_text(json.dumps(config))
    return tmp_path / "hub"


@pytest.mark.parametrize(("as_file", "pickled"), [(True, False), (True, True), (False, False)])
def test_a_repository_of_the_hub(as_file: bool, pickled: bool, hub: Path, tmp_path: Path) -> None:
    if pickled:
        (safetensors,) = hub.rglob("model.safetensors")
        safetensors.unlink()
        torch.save(STATE, safetensors.with_name("pytorch_model.bin"))
    torch.save(STATE, tmp_path / "weights.pth")
    source = ["hf-hub:somebody/mine"] if as_file else [tmp_path / "weights.pth", "--timm", "hf-hub:somebody/mine"]
    environment = {**os.environ, "HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline_lib", "import-classifier", *source, "--classes", "10", "--into"]
    done = subprocess.run([*command, tmp_path / "mine"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "mine/model.json").read_text())
    assert (card["timm"], {**card["arguments"], **TINY}) == ("resnet18", card["arguments"])
    assert card["preprocessing"]["mean"] == [0.5] * 3 and card["preprocessing"]["crop_pct"] == 0.8
    found = load_file(tmp_path / "mine/model.safetensors")
    assert found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)
    Card.model_validate(card)
    command[4:-3] = ["hf-hub:somebody/absent"]
    done = subprocess.run([*command, tmp_path / "b"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "hf-hub:somebody/absent: cannot fetch config.json" in done.stderr
