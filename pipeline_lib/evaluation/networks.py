"""The networks that a cell's analyses compare."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.errors import reading
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.quantization.checkpoint import (
    DESCRIPTION,
    MODEL,
    NEAREST,
    prepare_as_described,
    read_description,
    restore,
)
from pipeline_lib.quantization.layers import quant_layers
from pipeline_lib.quantization.prepare import Prepared
from pipeline_lib.quantization.quantizers import State, quantizers


@dataclass(frozen=True)
class Networks:
    """The networks of one cell, on the device."""

    reconstructed: nn.Module
    nearest: nn.Module
    reference: nn.Module  # float, batch norm folded
    twin: nn.Module  # float, with the modules of `reconstructed`
    layers: list[str]  # in order of execution
    data_config: dict[str, Any]


def load_networks(quantized: Path, classifier: Path, device: torch.device) -> Networks:
    """The networks of a cell, from the folder of its checkpoints and that of the classifier."""
    description, network = read_description(quantized), load_classifier(classifier).network
    with reading(quantized / DESCRIPTION, "the description of a checkpoint", "`dvc checkout` restores it"):
        prepared, data_config = prepare_as_described(network, description), description["data_config"]
    nearest = copy.deepcopy(prepared.quantized)
    restore(quantized / MODEL, prepared.quantized)
    restore(quantized / NEAREST, nearest)
    return Networks(
        reconstructed=place(prepared.quantized, device),
        nearest=place(nearest, device),
        twin=place(float_twin(prepared), device),
        layers=prepared.anatomy.layers,
        reference=place(prepared.reference, device),
        data_config=data_config,
    )


def float_twin(prepared: Prepared) -> nn.Module:
    """A copy of the quantized network that computes the float function, a plain layer in place of each QuantLayer.

    Where a LayerNorm was reparameterised it is so in the twin: a layer of one network can stand in the other.
    """
    reference, twin = prepared.reference, copy.deepcopy(prepared.quantized)
    for quantizer in quantizers(twin).values():
        quantizer.state = State.FLOAT
    for name in quant_layers(twin):
        twin.set_submodule(name, copy.deepcopy(reference.get_submodule(name)))
    for name, readers in prepared.anatomy.norm_readers.items():
        before, after = reference.get_submodule(name), twin.get_submodule(name)
        _reparameterise(before, after, [twin.get_submodule(reader) for reader in readers])
    return twin


def _reparameterise(before: nn.Module, after: nn.Module, readers: Sequence[nn.Module]) -> None:
    """Adapt float readers, in place, to a norm whose weight was divided by r and whose bias became bias / r - t.

    Where the norm's weight is 0 the channel is constant, and any r gives the same function: 1 is taken.
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
