"""The networks that a cell's analyses compare."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.quantization.attach import fold, quant_layers, quantizers
from pipeline_lib.quantization.checkpoint import load_quantized
from pipeline_lib.quantization.dataflow import layers, observe
from pipeline_lib.quantization.initialise import layer_norm_readers
from pipeline_lib.quantization.quantize import MODEL, NEAREST


@dataclass(frozen=True)
class Networks:
    """Of one cell, on the device."""

    reconstructed: nn.Module
    nearest: nn.Module
    reference: nn.Module  # float, batch norm folded
    twin: nn.Module  # float, with the modules of `reconstructed`
    layers: list[str]  # in order of execution
    data_config: dict[str, Any]


def load_networks(quantized: Path, classifier: Path, device: torch.device) -> Networks:
    """Build them from the cell's checkpoints and the folder of the classifier."""
    reconstructed, nearest = load_quantized(quantized, MODEL), load_quantized(quantized, NEAREST)
    reference, data_config = load_classifier(classifier).network, reconstructed.data_config
    blank = fold(reference, tuple(data_config["input_size"]))
    return Networks(
        reconstructed=place(reconstructed.network, device),
        nearest=place(nearest.network, device),
        twin=place(float_twin(reference, reconstructed.network, blank), device),
        layers=layers(observe(reference, blank)),
        reference=place(reference, device),
        data_config=data_config,
    )


def float_twin(reference: nn.Module, quantized: nn.Module, blank: Tensor) -> nn.Module:
    """A copy of the quantized network that computes the float function, a plain layer in place of each QuantLayer.

    reference: the float network with batch norm folded, of which `quantized` was made. blank: (1, 3, h, w), a batch to
    observe it on. Where a LayerNorm was reparameterised the twin keeps that form: layers of the two can be exchanged.
    """
    twin = copy.deepcopy(quantized)
    for quantizer in quantizers(twin).values():
        quantizer.enabled = False
    for name in quant_layers(twin):
        twin.set_submodule(name, copy.deepcopy(reference.get_submodule(name)))
    for name, readers in layer_norm_readers(observe(reference, blank)).items():
        before, after = reference.get_submodule(name), twin.get_submodule(name)
        _reparameterise(before, after, [twin.get_submodule(reader) for reader in readers])
    return twin


def _reparameterise(before: nn.Module, after: nn.Module, readers: Sequence[nn.Module]) -> None:
    """Adapt float readers, in place, to a norm whose weight was divided by r and whose bias became bias / r - t.

    A channel whose weight is 0 is constant, and any r does.
    """
    assert isinstance(before, nn.LayerNorm)
    assert isinstance(after, nn.LayerNorm)
    r = torch.where(after.weight == 0, 1, before.weight / after.weight)
    t = before.bias / r - after.bias
    for reader in readers:
        assert isinstance(reader, nn.Linear)
        reader.weight = nn.Parameter(reader.weight * r, requires_grad=False)
        shift = reader.weight @ t
        bias = shift if reader.bias is None else reader.bias + shift
        reader.bias = nn.Parameter(bias, requires_grad=False)
