"""Quantized networks: the same function where nothing is quantized, and every layer where it is."""

import copy
import json
import re
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.fakequant import reference_only
from pipeline_lib.models.card import Card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.params.base import read
from pipeline_lib.params.everything import read_preset
from pipeline_lib.params.reconstruct import Method, Override, Precision, Reconstruct, Softmax
from pipeline_lib.quantization import step
from pipeline_lib.quantization.anatomy import Anatomy
from pipeline_lib.quantization.checkpoint import checkpoint_description, load_quantized, restore, save_state
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.layers import QuantLayer, quant_layers
from pipeline_lib.quantization.losses import class_divergence
from pipeline_lib.quantization.packing import pack, unpack
from pipeline_lib.quantization.policies import Bits
from pipeline_lib.quantization.prepare import Prepared, prepare
from pipeline_lib.quantization.quantize import Quantization, quantize
from pipeline_lib.quantization.quantizers import LogSqrt2Quantizer, State, UniformQuantizer, quantizers
from pipeline_lib.quantization.ranges import PERCENTILES, SAMPLE, ActivationSample, search_asymmetric, search_symmetric
from pipeline_lib.quantization.scheme import make_scheme
from tests.conftest import MORE_CLASSIFIERS, make_classifier
from tests.fakequant.samples import needs_cuda

SMALL_VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
SMALL_SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
FAMILIES = {  # timm's name, arguments, image size
    "resnet": ("resnet18", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, 32),
    "bottleneck": ("resnet50", {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}, 32),
    "mobilenetv2": ("mobilenetv2_035", {}, 32),
    "mobilenetv3": ("mobilenetv3_small_050", {}, 32),
    "efficientnet": ("efficientnet_b0", {}, 32),
    "efficientnet-lite": ("tf_efficientnet_lite0", {}, 32),
    "mnasnet": ("mnasnet_050", {}, 32),
    "regnetx": ("regnetx_002", {}, 32),
    "regnety": ("regnety_002", {}, 32),
    "convnext": ("convnext_atto", {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}, 32),
    "vit": ("vit_tiny_patch16_224", SMALL_VIT, 16),
    "deit-distilled": ("deit_tiny_distilled_patch16_224", SMALL_VIT, 16),
    "swin": ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32),
    "efficientformer": (
        "efficientformer_l1",
        {"depths": (1, 1, 1, 2), "embed_dims": (8, 16, 24, 32), "num_vit": 1},
        224,
    ),
    "swin-padded": ("swin_tiny_patch4_window7_224", SMALL_SWIN | {"window_size": 5}, 32),
}
BLOCKS = {  # by the start of timm's name: what the literature reconstructs as one
    "resnet": r"layer\d+\.\d+",
    "mobilenet": r"blocks\.\d+\.\d+",
    "efficientnet": r"blocks\.\d+\.\d+",
    "tf_efficientnet": r"blocks\.\d+\.\d+",
    "mnasnet": r"blocks\.\d+\.\d+",
    "regnet": r"s\d+\.b\d+",
    "convnext": r"stages\.\d+\.blocks\.\d+",
    "vit": r"blocks\.\d+",
    "deit": r"blocks\.\d+",
    "swin": r"layers\.\d+\.blocks\.\d+",
    "efficientformer": r"stages\.\d+",
}
W2A4 = Precision(weight_bits=2, activation_bits=4)

PRESET = read_preset("default")
METHODS = {name: PRESET.methods[name] for name in ("tuned", "tuned-vit")}


def methods(iterations: int) -> dict[str, Method]:
    changes = {"iterations": iterations, "tune_iterations": iterations}
    return {name: method.model_copy(update=changes) for name, method in METHODS.items()}


def both(method: Method) -> dict[str, Method]:
    """The method for networks of every family."""
    return dict.fromkeys(METHODS, method)


def ready(built: nn.Module, size: torch.Size, precision: Precision = W2A4, softmax: Softmax = "log-sqrt2") -> Prepared:
    method = family_of(built).choose_method(PRESET.reconstruct, METHODS)
    scheme = partial(make_scheme, precision=precision, softmax=softmax, method=method)
    return prepare(built, size, scheme)


def anatomy(built: nn.Module, x: torch.Tensor) -> Anatomy:
    return ready(built, x.shape[1:]).anatomy


def switch_off(network: nn.Module) -> None:
    for quantizer in quantizers(network).values():
        quantizer.state = State.FLOAT


def network(family: str) -> tuple[nn.Module, torch.Tensor]:
    name, arguments, size = FAMILIES[family]
    torch.manual_seed(0)
    built = timm.create_model(name, num_classes=10, **arguments).eval().requires_grad_(False)
    for module in built.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.6)
            module.weight.uniform_(0.6, 1.2)
            module.bias.normal_(0, 0.1)
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.2, 5)
            module.bias.data.normal_()
    return built, torch.randn(4, 3, size, size)


@pytest.mark.parametrize("family", FAMILIES)
def test_folded_and_attached_but_off_is_the_float_network(family: str) -> None:
    built, x = network(family)
    expected = built(x)
    prepared = ready(built, x.shape[1:])
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in prepared.reference.modules())
    convolutions = {n for n, m in prepared.reference.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert set(prepared.anatomy.layers) == set(quant_layers(prepared.quantized)) == convolutions
    for network_ in (prepared.reference, prepared.quantized):
        assert torch.allclose(network_(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


ATTENTIONS = {
    "vit": ["blocks.0.attn", "blocks.1.attn"],
    "deit-distilled": ["blocks.0.attn", "blocks.1.attn"],
    "swin": ["layers.0.blocks.0.attn", "layers.1.blocks.1.attn"],
    "efficientformer": ["stages.3.blocks.2.token_mixer"],
}


@pytest.mark.parametrize(("family", "names"), ATTENTIONS.items())
def test_attention_products_are_in_the_bit_map(family: str, names: list[str]) -> None:
    built, x = network(family)
    prepared = ready(built, x.shape[1:])
    scheme = prepared.scheme
    description = checkpoint_description(prepared.quantized, Card(timm=family, num_classes=10), {}, scheme)
    for name in names:
        for operand in ("q", "k", "v", "softmax"):
            assert description["activations"][f"{name}.{operand}_quantizer"]["bits"] == 4
    assert description["weights"].keys() == scheme.bits.keys()
    assert description["simulation_only"]


def test_a_network_whose_layers_are_not_called_is_refused() -> None:
    built = timm.create_model("swinv2_tiny_window8_256", img_size=32, window_size=4, embed_dim=12, depths=(1, 1, 1, 1))
    with pytest.raises(InputError, match="attention of kind WindowAttention cannot be quantized yet"):
        ready(built.eval(), torch.Size((3, 32, 32)))


def test_a_layer_that_is_not_called_as_a_module_is_refused() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(self.first(x).mean((2, 3)), self.second.weight, self.second.bias)

    with pytest.raises(InputError, match="second and 0 other layers are not called as modules"):
        ready(Functional().eval(), torch.Size((3, 8, 8)))


@pytest.mark.parametrize(("family", "norms"), [("swin", 9), ("swin-padded", 5)])
def test_layer_norm_reparameterisation_reaches_through_windows(family: str, norms: int) -> None:
    """norm1 and norm2 of four blocks and the merging's norm; where windows are padded, not norm1."""
    built, x = network(family)
    expected = built(x)
    prepared = ready(built, x.shape[1:])
    readers, quantized = prepared.anatomy.norm_readers, prepared.quantized
    assert len(readers) == norms
    search_ranges(quantized, [x], readers, "lp")
    switch_off(quantized)
    assert torch.allclose(quantized(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_layer_norm_reparameterisation_keeps_the_function() -> None:
    built, x = network("vit")
    expected = built(x)
    prepared = ready(built, x.shape[1:])
    readers, quantized = prepared.anatomy.norm_readers, prepared.quantized
    assert readers == {
        f"blocks.{i}.{n}": [f"blocks.{i}.{r}"] for i in (0, 1) for n, r in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1"))
    }
    before = quantized.blocks[0].norm1.weight.clone()
    search_ranges(quantized, [x], readers, "lp")
    assert not torch.equal(before, quantized.blocks[0].norm1.weight)
    switch_off(quantized)
    assert torch.allclose(quantized(x), expected, rtol=0, atol=1e-6 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("policy", "eight_weights", "eight_inputs"),
    [("brecq", {0, -1}, {0, 1, -1}), ("qdrop", {0, -1}, {0, -1}), ("all", set(), set())],
)
def test_policies_of_cnns(policy: str, eight_weights: set[int], eight_inputs: set[int]) -> None:
    built, x = network("resnet")
    prepared = ready(built, x.shape[1:], W2A4.model_copy(update={"policies": {"cnn": policy}}))
    scheme, first_readers = prepared.scheme, prepared.anatomy.first_readers
    names = list(scheme.bits)
    assert {n for n, b in scheme.bits.items() if b.weight == 8} == {names[i] for i in eight_weights}
    wide = {first_readers[name] for name, bits in scheme.bits.items() if bits.activation == 8}
    assert wide == {names[i] for i in eight_inputs}
    assert scheme.bits["layer2.0.conv1"] == Bits(2, 4)


def test_layers_that_read_one_tensor_share_its_quantizer() -> None:
    built, x = network("resnet")
    block = ready(built, x.shape[1:]).quantized.layer3[0]
    assert block.conv1.input_quantizer is block.downsample[0].input_quantizer
    assert block.conv1.input_quantizer is not block.conv2.input_quantizer


def test_gradients_of_a_narrow_strided_convolution() -> None:
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 48, 1, stride=2, bias=False).requires_grad_(False), torch.randn(4, 3, 64, 64)
    quantized = QuantLayer(layer, 8, UniformQuantizer(8, symmetric=True), symmetric=False, per_tensor=False)
    quantized.search_grid("minmax")
    quantized.freeze(quantized.nearest())
    read = x[:, :, ::2, ::2]
    expected = torch.einsum("oi,nihw->nohw", quantized.weight[:, :, 0, 0], read)
    quantized.learn("log")
    integers = quantized.learn_integers()
    output = quantized(x.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(output, expected, atol=1e-5)
    direction = torch.randn(output.shape)
    (output * direction).sum().backward()
    assert integers.grad is not None
    by_weight = torch.einsum("nohw,nihw->oi", direction, read)
    assert torch.allclose(integers.grad[:, :, 0, 0], by_weight * quantized.step.view(-1, 1), rtol=1e-4, atol=1e-4)


def test_ranges_by_percentile_and_by_extremes() -> None:
    x = torch.randn(3, 200_000, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 1000
    full, _ = search_asymmetric(x, 8, 0, "minmax")
    assert full[0].item() == pytest.approx((1000 - x[0].min().item()) / 255, rel=1e-5)
    clipped, _ = search_asymmetric(x, 8, 0, "percentile")
    widths = [(x[1].quantile(p) - x[1].quantile(1 - p)).item() / 255 for p in PERCENTILES]
    assert any(clipped[1].item() == pytest.approx(width, rel=1e-5) for width in widths)
    assert search_symmetric(x[0], 8, "minmax")[0].item() == pytest.approx(1000 / 127, rel=0.01)


def test_layers_take_their_activation_along_and_blocks_are_merged() -> None:
    built, x = network("mobilenetv2")
    found = anatomy(built, x)
    groups = found.groups(1)
    assert groups[:2] == [("conv_stem", "bn1"), ("blocks.0.0",)]
    assert groups[-2:] == [("conv_head", "bn2"), ("classifier",)]
    assert found.chained == {group[0] for group in groups[1:-1]}, "the pooling stands before the classifier"
    merged = found.groups(3)
    assert merged[0] == ("conv_stem", "bn1", "blocks.0.0", "blocks.1.0")
    assert [name for group in merged for name in group] == [name for group in groups for name in group]
    assert merged[-1] == ("classifier",)


def test_merged_blocks_are_one_unit(calibration: dict[str, Path]) -> None:
    method = METHODS["tuned"].model_copy(update={"iterations": 4, "merge": 2, "tune_iterations": 0})
    out = run(calibration["resnet"], "resnet", Path("out"), both(method))
    units = [line.split(",")[0] for line in (out / "blocks.csv").read_text().splitlines()[1:]]
    assert units == ["conv1+act1", "layer1.0+layer2.0", "layer3.0+layer4.0", "fc"]
    x = torch.randn(4, *load_quantized(out).data_config["input_size"])
    assert load_quantized(out).network(x).isfinite().all()


def test_a_flat_loss_ends_a_unit_early(calibration: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "WINDOW", 3)
    method = METHODS["tuned"].model_copy(
        update={"iterations": 20, "tune_iterations": 20, "warmup": 0.2, "early_stop": 10.0}
    )
    out = run(calibration["resnet"], "resnet", Path("out"), both(method))
    last = pd.read_csv(out / "curves.csv").groupby("unit")["iteration"].max()
    assert (last == 12).all(), "the first multiple of 3 with two windows after iteration 4"


def test_units() -> None:
    built, x = network("vit")
    found = anatomy(built, x)
    names, units = found.layers, found.units
    assert list(units) == ["patch_embed.proj", "blocks.0", "blocks.1", "head"]
    assert [n for members in units.values() for n in members] == names


@pytest.mark.parametrize("family", FAMILIES)
def test_timm_groups_blocks_as_the_papers_do(family: str) -> None:
    built, x = network(family)
    found = anatomy(built, x)
    names = found.layers
    blocks = BLOCKS[next(start for start in BLOCKS if FAMILIES[family][0].startswith(start))]
    expected = {match.group() if (match := re.match(blocks, name)) else name for name in names}
    assert set(found.units) == expected
    assert len(expected) < len(names)


@pytest.mark.parametrize("name", ["densenet121", "poolformer_s12"])
def test_layers_are_units_where_blocks_are_unknown_or_take_more_than_a_tensor(name: str) -> None:
    found = anatomy(timm.create_model(name).eval(), torch.zeros(1, 3, 64, 64))
    assert list(found.units) == found.layers and not found.has_blocks


def test_a_network_without_blocks_says_so(
    calibration: dict[str, Path], workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_classifier(workspace / "world/classifiers/poolformer", "poolformer")
    out = run(calibration["resnet"], "poolformer", Path("out"), methods(0))
    assert "timm knows no blocks of this network" in capfd.readouterr().err
    assert load_quantized(out).network(torch.zeros(1, 3, 32, 32)).isfinite().all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(1, 40), st.integers(0, 1000))
def test_packing_is_reversible_and_tight(bits: int, count: int, seed: int) -> None:
    integers = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**bits, (count, 3), dtype=np.uint8))
    packed = pack(integers, bits)
    assert packed.numel() == -(-count * 3 * bits // 8)
    assert torch.equal(unpack(packed, bits, (count, 3)), integers)


def test_ranges() -> None:
    x = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1], [10], [1]])
    x[3] = x[3].abs()
    steps, zero = search_asymmetric(x, 4, 0, "lp")
    assert steps[1] / steps[0] == pytest.approx(10, rel=0.3)
    assert zero[3] == 0
    assert torch.equal(zero, zero.round())
    one, _ = search_asymmetric(x[1], 4, None, "lp")
    assert one == pytest.approx(steps[1].item()), "all channels at once is each channel alone"
    outlier = torch.cat([x[1], torch.tensor([100.0])])
    assert search_symmetric(outlier, 4, "lp")[0] < 100 / 7
    assert search_symmetric(x[3], 4, "lp")[2:] == (0, 15)
    assert search_symmetric(x[1], 4, "lp")[2:] == (-8, 7)
    assert search_asymmetric(torch.zeros(8), 4, None, "lp")[0] > 0


@pytest.fixture
def calibration(workspace: Path) -> dict[str, Path]:
    paths = {}
    for model, size in (("resnet", 32), ("vit", 16)):
        paths[model] = workspace / f"{model}.npy"
        np.save(paths[model], np.random.default_rng(0).integers(0, 256, (24, size, size, 3), dtype=np.uint8))
    return paths


def run(
    calibration: Path,
    model: str,
    out: Path,
    chosen: dict[str, Method] | None = None,
    precision: Precision = W2A4,
    device: str = "cpu",
    cache_gib: float = 1.0,
) -> Path:
    params = read(Reconstruct, "reconstruct")
    how = Quantization(precision, params, chosen or methods(4), torch.device(device), cache_gib)
    quantize(calibration, Path("world/classifiers") / model, how, out)
    return out


@pytest.mark.parametrize("model", ["resnet", "vit", "swin", "efficientformer"])
def test_checkpoint_gives_the_same_logits_bit_for_bit(
    calibration: dict[str, Path], model: str, workspace: Path
) -> None:
    if model not in calibration:
        make_classifier(workspace / "world/classifiers" / model, model)
        size = MORE_CLASSIFIERS[model][2]
        calibration[model] = workspace / f"{model}.npy"
        np.save(calibration[model], np.random.default_rng(0).integers(0, 256, (24, size, size, 3), dtype=np.uint8))
    out = run(calibration[model], model, Path("out"))
    assert {p.name for p in out.iterdir()} == {
        "model.safetensors",
        "nearest.safetensors",
        "quantization.json",
        "blocks.csv",
        "curves.csv",
    }
    first, second = load_quantized(out).network, load_quantized(out).network
    x = torch.randn(4, *load_quantized(out).data_config["input_size"])
    assert torch.equal(first(x), second(x))
    float_logits = load_classifier(Path("world/classifiers") / model).network(x)
    assert not torch.equal(first(x), float_logits)
    for layer in quant_layers(first).values():
        assert layer.integers.max() <= layer.qmax
        assert len(layer.weight[0].unique()) <= 2**layer.weight_bits


def test_same_input_same_bytes_and_a_killed_run_ends_the_same(
    calibration: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline_lib.quantization import quantize as module

    whole = {p.name: p.read_bytes() for p in run(calibration["resnet"], "resnet", Path("whole")).iterdir()}
    real, calls = module.reconstruct_unit, []

    def failing(name: str, *arguments: object, **more: object) -> object:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(name, *arguments, **more)

    monkeypatch.setattr(module, "reconstruct_unit", failing)
    with pytest.raises(KeyboardInterrupt):
        run(calibration["resnet"], "resnet", Path("out"))
    assert not Path("out").exists()
    again = {p.name: p.read_bytes() for p in run(calibration["resnet"], "resnet", Path("out")).iterdir()}
    assert calls[2] == calls[3], "finished units are not done again"
    assert calls[:2] + calls[3:] == ["conv1+act1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc"]
    assert again == whole


@pytest.mark.parametrize("model", ["resnet", "vit"])
def test_compiled_operators_and_the_reference_give_the_same_network(
    calibration: dict[str, Path], model: str, tmp_path: Path
) -> None:
    compiled = run(calibration[model], model, tmp_path / "compiled")
    with reference_only():
        reference = run(calibration[model], model, tmp_path / "reference")
    for name in ("model.safetensors", "nearest.safetensors"):
        assert (compiled / name).read_bytes() == (reference / name).read_bytes()


@pytest.mark.parametrize(("model", "iterations"), [("resnet", 60), ("vit", 300)])
def test_reconstruction_lowers_the_loss_of_a_unit(calibration: dict[str, Path], model: str, iterations: int) -> None:
    out = run(calibration[model], model, Path("out"), methods(iterations))
    table = pd.read_csv(out / "blocks.csv")
    inner = table.iloc[1:]
    assert (inner["loss_after"] < inner["loss_before"]).all(), table
    assert (table["flipped"] <= 1).all()
    curves = pd.read_csv(out / "curves.csv")
    assert set(table["unit"]) == set(curves["unit"])
    assert (curves.groupby("unit")["iteration"].max() == iterations).all()
    assert (curves["gradient_norm"] > 0).all()


@pytest.mark.parametrize(("name", "model"), [("qdrop", "resnet"), ("brecq", "resnet"), ("repq-vit", "vit")])
def test_the_other_methods(calibration: dict[str, Path], name: str, model: str) -> None:
    method = PRESET.methods[name]
    method = method.model_copy(update={"iterations": min(method.iterations, 4)})
    out = run(calibration[model], model, Path("out"), both(method))
    restored = load_quantized(out).network
    signs = {q.symmetric for q in quantizers(restored).values() if isinstance(q, UniformQuantizer)}
    assert False in signs, "activations are asymmetric"
    if name == "repq-vit":
        first, second = load_file(out / "model.safetensors"), load_file(out / "nearest.safetensors")
        assert all(torch.equal(first[key], second[key]) for key in first), "nothing is reconstructed"


def test_the_head_may_be_reconstructed_by_the_divergence_of_its_classes(calibration: dict[str, Path]) -> None:
    changes = {"tune_iterations": 0, "head": "squared"}
    squared = {name: method.model_copy(update=changes) for name, method in methods(20).items()}
    kl = {name: method.model_copy(update={"head": "kl"}) for name, method in squared.items()}
    one = load_file(run(calibration["vit"], "vit", Path("squared"), squared) / "model.safetensors")
    two = load_file(run(calibration["vit"], "vit", Path("kl"), kl) / "model.safetensors")
    differing = {key.split(".")[0] for key in one if not torch.equal(one[key], two[key])}
    assert differing == {"head"}


def test_class_divergence() -> None:
    logits = torch.randn(5, 10)
    assert class_divergence(logits + 3, logits).item() == pytest.approx(0, abs=1e-6)
    other = torch.randn(5, 10)
    p, q = logits.softmax(-1), other.softmax(-1)
    assert class_divergence(other, logits).item() == pytest.approx((p * (p / q).log()).sum(1).mean().item(), rel=1e-4)


def test_overrides_by_pattern() -> None:
    built, x = network("resnet")
    overrides = {"layer?.0.conv1": Override(weight_bits=6), "layer2.*": Override(activation_bits=5)}
    bits = ready(copy.deepcopy(built), x.shape[1:], W2A4.model_copy(update={"overrides": overrides})).scheme.bits
    assert bits["layer2.0.conv1"] == Bits(6, 5)
    assert bits["layer2.0.conv2"] == Bits(2, 5)
    assert bits["layer3.0.conv2"] == Bits(2, 4)
    with pytest.raises(InputError, match=r"no layer matches the override 'layer9\.\*'; there are conv1, "):
        ready(built, x.shape[1:], W2A4.model_copy(update={"overrides": {"layer9.*": Override()}}))


DEPLOYABLE = W2A4.model_copy(update={"policies": {"cnn": "deployable", "vit": "deployable"}})
SUMS = {"resnet": 4, "bottleneck": 4, "mobilenetv2": 10, "regnety": 13, "convnext": 5, "vit": 4, "swin": 8}


@pytest.mark.parametrize(("family", "sums"), SUMS.items())
def test_residual_sums_have_8_bits_where_they_must_be_deployable(family: str, sums: int) -> None:
    built, x = network(family)
    expected = built(x)
    prepared = ready(built, x.shape[1:], DEPLOYABLE)
    built = prepared.quantized
    assert torch.allclose(built(x), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    found = {n: q for n, q in quantizers(built).items() if ".residual_sums." in n}
    assert len(found) == sums and all(q.bits == 8 for q in found.values())
    search_ranges(built, [x], prepared.anatomy.norm_readers, "minmax")
    for name, quantizer in quantizers(built).items():
        quantizer.state = State.QUANTIZED if name in found else State.FLOAT
    copied, errors = copy.deepcopy(built), []
    for name in found:
        copied.get_submodule(name).register_forward_hook(
            lambda q, inputs, output: errors.append((output - inputs[0]).abs().max() / q.step)
        )
    assert not torch.equal(copied(x), expected)
    assert len(errors) == sums and errors[0] < 0.51, "each is used, once, and rounds"
    assert not [q for q in quantizers(built).values() if isinstance(q, LogSqrt2Quantizer)]


def test_a_deployable_checkpoint_is_more_than_a_simulation(calibration: dict[str, Path]) -> None:
    out = run(calibration["vit"], "vit", Path("out"), precision=DEPLOYABLE)
    description = json.loads((out / "quantization.json").read_text())
    assert not description["simulation_only"]
    assert description["activations"]["blocks.0.residual_sums.1"]["bits"] == 8
    first, second = load_quantized(out).network, load_quantized(out).network
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(first(x), second(x))


@pytest.mark.parametrize("weights", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("steps", ["log", "linear"])
def test_grids_and_steps(
    calibration: dict[str, Path], weights: Literal["symmetric"], granularity: Literal["channel"], steps: Literal["log"]
) -> None:
    grid = {"weights": weights, "granularity": granularity, "steps": steps}
    chosen = {name: method.model_copy(update=grid) for name, method in methods(20).items()}
    out = run(calibration["resnet"], "resnet", Path("out"), chosen)
    table = pd.read_csv(out / "blocks.csv")
    assert table["loss_after"].sum() < table["loss_before"].sum()
    before, after = (load_file(out / name) for name in ("nearest.safetensors", "model.safetensors"))
    changed = (before["layer1.0.downsample.0.step"] / after["layer1.0.downsample.0.step"] - 1).abs().max()
    assert changed > 1e-3, "steps are learned"
    for layer in quant_layers(load_quantized(out).network).values():
        assert layer.step.numel() == (1 if granularity == "tensor" else len(layer.weight))
        if weights == "symmetric":
            assert (layer.zero_point == 2 ** (layer.weight_bits - 1)).all()


def test_tuning_keeps_integers_without_a_rate_and_brings_the_classes_closer(calibration: dict[str, Path]) -> None:
    tuned = {name: method.model_copy(update={"learning_rate_integer": 0.0}) for name, method in methods(40).items()}
    untuned = {name: method.model_copy(update={"tune_iterations": 0}) for name, method in tuned.items()}
    one, two = (run(calibration["resnet"], "resnet", Path(n), how) for n, how in (("one", untuned), ("two", tuned)))
    before, after = (load_file(out / "model.safetensors") for out in (one, two))
    integers = [key for key in before if key.endswith("integers")]
    assert integers and all(torch.equal(before[key], after[key]) for key in integers)
    changed = {key.rpartition(".")[2] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"step", "bias"}
    row = pd.read_csv(two / "blocks.csv").iloc[-1]
    assert row["unit"] == "network" and row["loss_after"] < row["loss_before"]


def test_an_override_of_one_reader_sets_the_quantizer_that_all_of_them_share() -> None:
    eight = W2A4.model_copy(update={"overrides": {"layer3.0.downsample.0": Override(activation_bits=8)}})
    built, x = network("resnet")
    prepared = ready(copy.deepcopy(built), x.shape[1:], eight)
    block = prepared.quantized.layer3[0]
    assert block.conv1.input_quantizer is block.downsample[0].input_quantizer
    assert block.conv1.input_quantizer.bits == 8
    assert {prepared.scheme.bits[f"layer3.0.{name}"].activation for name in ("conv1", "downsample.0")} == {8}
    overrides = {"layer3.0.conv1": Override(activation_bits=6), **eight.overrides}
    with pytest.raises(InputError, match=r"layer3\.0\.conv1 6 and layer3\.0\.downsample\.0 8 activation bits"):
        ready(built, x.shape[1:], W2A4.model_copy(update={"overrides": overrides}))


def test_minmax_is_the_full_range_of_all_values_not_of_those_drawn() -> None:
    x = torch.zeros(2, 4 * SAMPLE)
    x[0, 17], x[1, 5] = -3.0, 12.0  # which a random draw is unlikely to hold
    sample = ActivationSample.joined([ActivationSample.of(x[:1]), ActivationSample.of(x[1:])])
    quantizer = UniformQuantizer(4, symmetric=False)
    quantizer.search_grid(sample, "minmax")
    assert quantizer.bounds() == pytest.approx((-3, 12))
    softmax = LogSqrt2Quantizer(4)
    softmax.search_grid(sample, "minmax")
    assert float(softmax.step) == 12


def test_minmax_of_a_layer_norms_channels_is_of_all_tokens() -> None:
    built, _ = network("vit")
    x = torch.randn(100, 3, 16, 16)  # 1,700 tokens, of which 1,024 are drawn
    prepared = ready(built, x.shape[1:], W2A4.model_copy(update={"activation_bits": 8}))
    quantized = prepared.quantized
    search_ranges(quantized, [x], prepared.anatomy.norm_readers, "minmax")
    switch_off(quantized)
    clipped: list[torch.Tensor] = []
    quantizer = quantized.blocks[0].attn.qkv.input_quantizer
    quantizer.register_forward_pre_hook(lambda _, inputs: clipped.append(inputs[0]))
    quantized(x)
    low, high = quantizer.bounds()
    step = float(quantizer.step)
    assert low - step < float(clipped[0].min()) and float(clipped[0].max()) < high + step


def test_two_batch_norms_behind_one_convolution_are_refused() -> None:
    class Forked(nn.Module):
        def __init__(self, norms: int) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)
            self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(norms))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            normalised = sum(norm(x) for norm in self.norms)
            return self.head((normalised if len(self.norms) > 1 else normalised + x).mean((2, 3)))

    def forked(norms: int) -> nn.Module:
        built = Forked(norms).eval().requires_grad_(False)
        for norm in built.norms:
            norm.running_var.uniform_(2, 4)
        return built

    with pytest.raises(InputError, match=r"conv: read by two batch norms, norms\.0 and norms\.1"):
        ready(forked(2), torch.Size((3, 8, 8)))
    with pytest.raises(InputError, match="something else reads a convolution that a batch norm follows"):
        ready(forked(1), torch.Size((3, 8, 8)))


@pytest.mark.parametrize("family", ["resnet", "mobilenetv2", "vit"])
def test_a_unit_is_restored_in_the_memory_format_that_it_had(family: str, tmp_path: Path) -> None:
    built, x = network(family)
    prepared = ready(built, x.shape[1:]).to(torch.device("cpu"))
    search_ranges(prepared.quantized, [x], prepared.anatomy.norm_readers, "lp")
    restored = copy.deepcopy(prepared.quantized)
    for layer in quant_layers(prepared.quantized).values():
        layer.freeze(layer.nearest())
    save_state(tmp_path / "whole.safetensors", prepared.quantized)
    restore(tmp_path / "whole.safetensors", restored)
    for name, layer in quant_layers(prepared.quantized).items():
        other = restored.get_submodule(name)
        assert torch.equal(other.weight, layer.weight) and torch.equal(other.integers, layer.integers)
        assert other.weight.stride() == layer.weight.stride() and other.integers.stride() == layer.integers.stride()


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=needs_cuda)])
def test_a_unit_is_restored_on_the_device_that_it_is_on(device: str, tmp_path: Path) -> None:
    built, x = network("resnet")
    quantized = ready(built, x.shape[1:]).quantized
    for layer in quant_layers(quantized).values():
        layer.search_grid("lp")
        layer.freeze(layer.nearest())
    save_state(tmp_path / "unit.safetensors", quantized.layer1[0])
    unit = copy.deepcopy(quantized.layer1[0]).to(device)
    restore(tmp_path / "unit.safetensors", unit)
    tensors = [*unit.parameters(), *unit.buffers(), *(layer.weight for layer in quant_layers(unit).values())]
    assert {tensor.device.type for tensor in tensors} == {device}


def test_soft_rounding_starts_at_the_float_weight() -> None:
    built, x = network("resnet")
    built = ready(built, x.shape[1:], W2A4.model_copy(update={"weight_bits": 8})).quantized
    layer = built.layer1[0].conv1
    expected = copy.deepcopy(layer)(x[:, :1].expand(-1, 64, -1, -1))
    layer.search_grid("lp")
    layer.learn_rounding()
    layer.learn("log")
    soft = layer(x[:, :1].expand(-1, 64, -1, -1))
    assert torch.allclose(soft, expected, atol=0.05 * expected.abs().max().item())
    assert layer.harden() == 0.0, "unlearned roundings are to nearest"
