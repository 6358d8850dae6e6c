"""What lies in a classifier's folder is used as it is meant, or refused in one line before anything runs."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform

from pipeline_lib.errors import InputError
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import resize_and_crop
from pipeline_lib.models.weights import read_tensors
from tests.conftest import ROOT, edit_params

CPU = torch.device("cpu")
Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


def change(folder: Path, by: Change) -> None:
    """Change model.json and the weights, whose digest is written anew."""
    card, state = json.loads((folder / "model.json").read_text()), load_file(folder / "model.safetensors")
    by(card, state)
    save_file(state, folder / "model.safetensors")
    if card.get("sha256"):
        card["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(card))


def prefix(text: str) -> Change:
    def by(_: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        renamed = {text + name: tensor for name, tensor in state.items()}
        state.clear()
        state.update(renamed)

    return by


def preprocessing(**changes: object) -> Change:
    return lambda card, _: card["preprocessing"].update(changes)


def without(key: str) -> Change:
    return lambda card, _: card["preprocessing"].pop(key)


REFUSED: dict[str, tuple[Change, str]] = {
    "module": (prefix("module."), "have the prefix 'module.', which `python -m pipeline_lib import-classifier` takes"),
    "both": (prefix("_orig_mod.module."), "have the prefix '_orig_mod.module.'"),
    "missing": (
        lambda _, state: state.pop("fc.bias"),
        "1 of 80 tensors that the network needs are missing, first fc.bias",
    ),
    "more": (lambda _, state: state.update(aux=torch.ones(1)), "1 of 81 tensors are of no use to it, first aux"),
    "newline": (lambda _, state: state.update({"a\nb": torch.ones(1)}), r"first a\nb"),
    "more classes": (
        lambda card, _: card.update(num_classes=1000),
        "for 10 classes, but the network for 1000; `num_cl",
    ),
    "fewer classes": (
        lambda card, _: card.update(num_classes=9),
        "for 10 classes, but the network for 9; `num_classes`",
    ),
    "no class": (lambda card, _: card.update(num_classes=0), "`num_classes` is 0"),
    "a number for a head": (
        lambda _, state: state.update({"fc.bias": torch.tensor(1.0)}),
        "has (10,), the checkpoint ()",
    ),
    "many classes": (lambda card, _: card.update(num_classes=2**63), "`num_classes` is 9223372036854775808"),
    "no channels": (lambda card, _: card["arguments"].update(in_chans=0), "expected an `in_chans` of 3, or of 1"),
    "channels in words": (lambda card, _: card["arguments"].update(in_chans="3"), "expected an `in_chans` of 3, or of"),
    "stride": (lambda card, _: card["arguments"].update(output_stride=0), "timm cannot build 'resnet18': AssertionErr"),
    "frames": (lambda card, _: card["arguments"].update(channels=[-1, 8, 8, 8]), "timm cannot build 'resnet18': "),
    "long name": (lambda card, _: card.update(timm="x" * 5000), "timm has no model 'xxx"),
    "nan": (lambda _, state: state["fc.weight"][3].fill_(torch.nan), "fc.weight has 16 values that are NaN"),
    "infinite": (lambda _, state: state["bn1.running_var"].fill_(torch.inf), "bn1.running_var has 64 values"),
    "explosive": (lambda _, state: state["bn1.running_var"].fill_(-1), "the network gives logits that are NaN"),
    "integers": (lambda _, state: state.update({"fc.bias": torch.ones(10).int()}), "fc.bias is of torch.int32"),
    "no preprocessing": (lambda card, _: card.pop("preprocessing"), "missing key `preprocessing`"),
    "no digest": (lambda card, _: card.pop("sha256"), "`python -m pipeline_lib pin"),
    "unknown key": (lambda card, _: card.update(name="mine"), "unknown key `name`"),
    "no such name": (
        lambda card, _: card.update(timm="resnet_18"),
        "timm has no model 'resnet_18'; close names: resnet18",
    ),
    "no such tag": (lambda card, _: card.update(timm="resnet18.nobody"), "Invalid pretrained tag"),
    "repository": (lambda card, _: card.update(timm="timm/resnet18.a1_in1k"), "import-classifier` makes a folder"),
    "hub": (lambda card, _: card.update(timm="hf-hub:timm/resnet18.a1_in1k"), "import-classifier` makes a folder"),
    "arguments": (lambda card, _: card["arguments"].update(stairs=3), "timm cannot build 'resnet18'"),
    "layers": (lambda card, _: card["arguments"].update(layers="many"), "timm cannot build 'resnet18'"),
    "channels": (preprocessing(input_size=[1, 32, 32], mean=[0.5], std=[0.5]), "has 1 channels, the network reads 3"),
    "two means": (preprocessing(mean=[0.5, 0.5]), "expected a mean and a std for each channel"),
    "not square": (preprocessing(input_size=[3, 32, 64]), "expected an input_size of 1 or 3 channels and a square"),
    "huge": (preprocessing(input_size=[3, 10**9, 10**9]), "`preprocessing.input_size.1` is 1000000000"),
    "mean of 255": (
        preprocessing(mean=[127.5] * 3),
        "expected values for pixels from 0 to 1; divide those for 0 to 255",
    ),
    "std of 255": (preprocessing(std=[127.5] * 3), "expected values for pixels from 0 to 1"),
    "divided twice": (preprocessing(std=[0.001] * 3), "`preprocessing.std` is [0.001, 0.001, 0.001]; expected 1/255"),
    "std 0": (preprocessing(std=[0.5, 0.5, 0.0]), "`preprocessing.std` is [0.5, 0.5, 0.0]"),
    "nan std": (preprocessing(std=[0.5, 0.5, float("nan")]), "`preprocessing.std.2` is nan"),
    "negative": (preprocessing(mean=[-0.5] * 3), "`preprocessing.mean.0` is -0.5"),
    "random": (preprocessing(interpolation="random"), "`preprocessing.interpolation` is 'random'"),
    "blank": (preprocessing(interpolation="bicubic "), "`preprocessing.interpolation` is 'bicubic '"),
    "border": (preprocessing(crop_mode="border"), "`preprocessing.crop_mode` is 'border'"),
    "crop 0": (preprocessing(crop_pct=0), "`preprocessing.crop_pct` is 0"),
    "crop of percent": (preprocessing(crop_pct=87.5), "`preprocessing.crop_pct` is 87.5"),
    **{
        key: (without(key), f"missing key `preprocessing.{key}`")
        for key in ("mean", "crop_pct", "crop_mode", "input_size")
    },
}


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / "world/classifiers/resnet"


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, folder: Path) -> None:
    by, said = REFUSED[kind]
    change(folder, by)
    with pytest.raises(InputError) as refused:
        load_classifier(folder)
    message = str(refused.value)
    assert said in message and str(folder) in message
    assert "\n" not in message and len(message) < 700 and "frame #" not in message


def test_a_network_that_cannot_take_its_images(workspace: Path) -> None:
    folder = workspace / "world/classifiers/vit"
    change(folder, preprocessing(input_size=[3, 64, 64]))
    with pytest.raises(InputError, match=r"the network cannot take an image of \[3, 64, 64\]") as refused:
        load_classifier(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_the_same_values(dtype: torch.dtype, folder: Path) -> None:
    floats = {name for name, tensor in load_file(folder / "model.safetensors").items() if tensor.is_floating_point()}
    change(folder, lambda _, state: state.update({name: state[name].to(dtype) for name in floats}))
    found = load_classifier(folder).network.state_dict()
    expected = load_file(folder / "model.safetensors")
    assert all(found[name].dtype == torch.float32 for name in floats)
    assert all(torch.equal(found[name].double(), expected[name].double()) for name in floats)


def test_a_link_to_nothing_is_no_reason_to_take_other_weights(folder: Path) -> None:
    change(folder, lambda card, _: card.update(timm="resnet18.tv_in1k", revision="0" * 40))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("elsewhere.safetensors")
    with pytest.raises(InputError, match="cannot read the weights"):
        load_classifier(folder)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | st.binary(max_size=64).map(lambda header: len(header).to_bytes(8, "little") + header)
)
@example(content=b"")
@example(content=b"\xff" * 8)
@example(content=(2).to_bytes(8, "little") + b"{}" + b"trailing")
@example(content=(60).to_bytes(8, "little") + b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}       ' + b"x")
def test_what_is_no_safetensors_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "odd.safetensors").write_bytes(content)
    said = ""
    try:
        read_tensors(tmp_path / "odd.safetensors", "take another")
    except InputError as error:
        said = str(error)
    assert "\n" not in said and ("odd.safetensors" in said or not said)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("size", [(50, 70), (71, 40), (64, 64)])
def test_the_crop_is_that_of_timm(crop_mode: str, crop_pct: float, size: tuple[int, int]) -> None:
    config = {"input_size": [3, 32, 32], "interpolation": "bilinear", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    config |= {"crop_pct": crop_pct, "crop_mode": crop_mode}
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    timms = create_transform(**{**config, "input_size": (3, 32, 32)})(image)
    ours = Normaliser(config, CPU)(resize_and_crop(config)(image)[None])[0]
    assert torch.allclose(ours, timms, atol=1e-5)


def test_grey_is_pillows() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 9, 7, 3), dtype=np.uint8)
    batch = Normaliser({"input_size": [1, 9, 7], "mean": [0.0], "std": [1.0]}, CPU)(pixels)
    expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    assert batch.shape == (2, 1, 9, 7)
    assert np.array_equal((batch[:, 0] * 255).round().numpy().astype(np.uint8), expected)


def test_a_grey_network_goes_all_the_way(workspace: Path, stage: Callable[..., int]) -> None:
    grey = workspace / "world/classifiers/grey"
    shutil.copytree(workspace / "world/classifiers/resnet", grey)

    def by(card: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
        card["arguments"]["in_chans"] = 1
        card["preprocessing"] |= {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.25]}
        state["conv1.weight"] = state["conv1.weight"].sum(1, keepdim=True)

    change(grey, by)
    edit_params(workspace / "params.yaml", **{"axes.models": ["grey"]})
    for source, *command in [
        ("noise", "calibrate", "--images", "noise"),
        ("distilled", "distil"),
        ("real", "calibrate", "--images", "real"),
    ]:
        name, *options = command
        arguments = ["grey"] if name == "distil" else [source, "grey"]
        assert stage(name, *arguments, *options) == 0
        assert np.load(f"data/calibration/{source}-grey/images.npy").shape == (24, 32, 32, 3)
        assert stage("reconstruct", source, "grey", "w4a4") == 0
    noise = np.load("data/calibration/noise-grey/images.npy")
    assert (noise == noise[..., :1]).all() and noise.std() > 30
    assert stage("evaluate_float", "grey") == 0
    assert stage("evaluate", "real", "grey", "w4a4") == 0


def test_the_cards_that_ship_are_read_as_they_are() -> None:
    shipped = sorted(ROOT.glob("data/fashion/classifiers/*/*"))
    assert len(shipped) == 6
    for folder in shipped:
        expected = json.loads((folder / "model.json").read_text())["preprocessing"]
        assert json.dumps(resolve_data_config(folder)) == json.dumps(expected)


def test_what_timm_says_of_weights_with_a_tag(folder: Path) -> None:
    change(folder, lambda card, _: [card.update(timm="resnet18.tv_in1k"), card.pop("preprocessing")])
    config = resolve_data_config(folder)
    assert config == {k: list(v) if isinstance(v, tuple) else v for k, v in timm.data.resolve_data_config(
        pretrained_cfg=timm.get_pretrained_cfg("resnet18.tv_in1k").to_dict()
    ).items()}  # fmt: skip
