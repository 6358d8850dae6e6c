"""What evaluation says of single layers, and the images that quantization turned, against known answers."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from pipeline_lib.evaluation.flipped import COUNT, flipped
from pipeline_lib.evaluation.histograms import BINS, histograms
from pipeline_lib.evaluation.labelled import Labelled
from pipeline_lib.evaluation.networks import float_twin
from pipeline_lib.evaluation.sensitivity import sensitivity
from pipeline_lib.params.everything import read_preset
from pipeline_lib.params.reconstruct import Precision
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.layers import quant_layers
from pipeline_lib.quantization.prepare import Prepared, prepare
from pipeline_lib.quantization.scheme import make_scheme
from tests.conftest import CLASSIFIERS

PRESET = read_preset("default")


def quantized(model: str, bits: int, *, ranges: bool = True) -> tuple[Prepared, torch.Tensor]:
    """A network rounded to nearest, with the float one, and images."""
    name, arguments, size = CLASSIFIERS[model]
    torch.manual_seed(0)
    built = timm.create_model(name, num_classes=10, **arguments).eval().requires_grad_(False)
    for module in built.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.2, 5)
            module.bias.data.normal_()
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.6, 1.2)  # timm begins the last of each block with 0
    with torch.no_grad():
        built.get_classifier().weight.normal_(0, 0.5)  # timm's are so small that all classes are alike
    images = torch.randn(6, 3, size, size)
    precision = Precision(weight_bits=bits, activation_bits=bits, policies={"cnn": "all", "vit": "all"})
    method = family_of(built).choose_method(PRESET.reconstruct, PRESET.methods)
    scheme = partial(make_scheme, precision=precision, softmax="log-sqrt2", method=method)
    prepared = prepare(built, (3, size, size), scheme)
    if ranges:
        search_ranges(prepared.quantized, [images], prepared.anatomy.norm_readers, "lp")
        for layer in quant_layers(prepared.quantized).values():
            layer.freeze(layer.nearest())
    return prepared, images


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_the_twin_is_the_float_network_and_the_quantized_one_is_not(model: str) -> None:
    prepared, images = quantized(model, 2)
    reference, network = prepared.reference, prepared.quantized
    expected = reference(images)
    tolerance = 1e-5 * expected.abs().max().item()
    assert torch.allclose(float_twin(prepared)(images), expected, rtol=0, atol=tolerance)
    assert not torch.allclose(network(images), expected, rtol=0, atol=1e3 * tolerance)


def test_the_twin_of_a_norm_with_dead_channels_is_finite() -> None:
    prepared, images = quantized("vit", 4)
    reference, network = prepared.reference, prepared.quantized
    for net in (reference, network):
        net.blocks[0].norm1.weight[3] = 0
    network.blocks[0].norm1.bias[3] = 7.0  # whatever the reparameterisation made of it
    twin = float_twin(prepared)
    assert torch.allclose(twin(images), reference(images), rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_a_layer_at_more_bits_diverges_less(model: str) -> None:
    tables = {}
    for bits in (2, 8):
        prepared, images = quantized(model, bits)
        network, names = prepared.quantized, prepared.anatomy.layers
        twin, before = float_twin(prepared), network(images)
        plain = twin(images)
        tables[bits] = sensitivity(twin, network, names, images.split(4))
        assert torch.equal(twin(images), plain) and torch.equal(network(images), before), "both are as they were"
        assert tables[bits]["layer"].tolist() == names
        assert (tables[bits][["weight_bits", "activation_bits"]] == bits).all(axis=None)
        assert (tables[bits]["divergence"] > 0).all()
    assert (tables[8]["divergence"] < tables[2]["divergence"]).all()


def test_sensitivity_is_the_divergence_of_that_layer_alone() -> None:
    prepared, images = quantized("resnet", 2)
    network, names = prepared.quantized, prepared.anatomy.layers
    table = sensitivity(float_twin(prepared), network, names, [images])
    name = "layer2.0.conv1"  # whose input downsample.0 reads through the same quantizer: there it stays float
    layer = network.get_submodule(name)
    assert layer.input_quantizer is network.get_submodule("layer2.0.downsample.0").input_quantizer
    reference = prepared.reference
    p = reference(images).double().softmax(1)
    reference.set_submodule(name, layer)
    q = reference(images).double().softmax(1)
    expected = (p * (p / q).log()).sum(1).mean().item()
    assert table.set_index("layer").divergence[name] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_nothing_quantized_is_no_divergence(model: str) -> None:
    prepared, images = quantized(model, 2, ranges=False)
    network, names = prepared.quantized, prepared.anatomy.layers
    table = sensitivity(float_twin(prepared), network, names, [images])
    assert table["divergence"].tolist() == [0] * len(names)


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_histograms_count_every_value_between_its_extremes(model: str) -> None:
    prepared, images = quantized(model, 4)
    network, names = prepared.quantized, prepared.anatomy.layers
    twin = float_twin(prepared)
    found = histograms(twin, network, names, images)
    assert list(found) == names
    for name in names:
        weight = twin.get_submodule(name).weight
        assert sum(found[name]["weight"]["counts"]) == weight.numel()
        assert found[name]["weight"]["lo"] == pytest.approx(weight.min().item())
        assert found[name]["weight"]["hi"] == pytest.approx(weight.max().item())
        assert all(len(found[name][part]["counts"]) == BINS for part in ("weight", "input"))
    first = found[names[0]]["input"]
    assert sum(first["counts"]) == images.numel()
    assert (first["lo"], first["hi"]) == pytest.approx((images.min().item(), images.max().item()))


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_clip_lines_are_the_ends_of_the_quantizers_grid(model: str) -> None:
    """Values far beyond the grid come out at its ends."""
    prepared, images = quantized(model, 4)
    network, names = prepared.quantized, prepared.anatomy.layers
    found = histograms(float_twin(prepared), network, names, images)
    for name in names:
        layer = network.get_submodule(name)
        ends = layer.input_quantizer(torch.tensor([-1e6, 1e6])).tolist()
        assert [found[name]["input"]["clip_lo"], found[name]["input"]["clip_hi"]] == pytest.approx(ends)
        lowest, highest = found[name]["weight"]["clip_lo"], found[name]["weight"]["clip_hi"]
        layer.freeze(torch.zeros_like(layer.integers))
        assert layer.weight.min().item() == pytest.approx(lowest)
        layer.freeze(torch.full_like(layer.integers, layer.qmax))
        assert layer.weight.max().item() == pytest.approx(highest)


def predictions(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["label", "float", "reconstructed"])
    table.insert(0, "key", [f"{i:03d}" for i in range(len(rows))])
    return table.assign(nearest=0)


CONFIG = {"input_size": (3, 4, 4), "crop_pct": 1.0, "interpolation": "bicubic"}


def images(count: int) -> list[Labelled]:
    return [Labelled(f"{i:03d}", 0, partial(Image.new, "RGB", (4, 4), (i, 0, 0))) for i in range(count)]


def test_flipped_are_right_before_and_wrong_after() -> None:
    table = predictions([(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 0), (1, 1, 0)])
    rows, pixels = flipped(table, images(5), CONFIG)
    rows["pixel"] = pixels[:, 0, 0, 0]
    assert rows.sort_values("key").to_dict("list") == {
        "key": ["001", "004"],
        "label": [0, 1],
        "float": [0, 1],
        "reconstructed": [1, 0],
        "pixel": [1, 4],
    }
    assert pixels.dtype == np.uint8


def test_flipped_are_a_sample_by_key() -> None:
    rows, pixels = flipped(predictions([(0, 0, 1)] * 40), images(40), CONFIG)
    assert len(rows) == len(pixels) == COUNT
    assert max(rows["key"]) > "020", "not the first ones"
    assert [f"{pixel:03d}" for pixel in pixels[:, 0, 0, 0]] == rows["key"].tolist()


def test_nothing_flipped_is_an_empty_array_of_the_size() -> None:
    rows, pixels = flipped(predictions([(0, 0, 0)]), images(1), CONFIG)
    assert list(rows) == ["key", "label", "float", "reconstructed"] and not len(rows)
    assert pixels.shape == (0, 4, 4, 3) and pixels.dtype == np.uint8
