"""Putting quantizers into a timm network, module by module, without tracing it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.units import reconstruction_units
from pipeline_lib.params.reconstruct import Granularity, Grid, Method, Precision
from pipeline_lib.quantization.attention import Softmax, quantized_attention
from pipeline_lib.quantization.dataflow import QUANTIZABLE, layers, observe, shared_inputs
from pipeline_lib.quantization.folding import fold_batch_norm
from pipeline_lib.quantization.policies import Bits, is_vision_transformer, residual_bits, resolve
from pipeline_lib.quantization.quantizers import LogSqrt2Quantizer, Quantizer, QuantLayer, UniformQuantizer
from pipeline_lib.quantization.residuals import quantize_residual_sums


@dataclass(frozen=True)
class Scheme:
    """All that is needed to put the same quantizers into the same architecture again."""

    bits: dict[str, Bits]  # by layer, in order of execution
    weights: Grid
    granularity: Granularity  # of weights
    activations: Grid
    attention_bits: int
    softmax: Softmax
    residual_bits: int | None  # of the sums in blocks; none: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Scheme":
        """The inverse of `to_json`."""
        return cls(**{**value, "bits": {name: Bits(**bits) for name, bits in value["bits"].items()}})


def make_scheme(
    folded: nn.Module, batch: torch.Tensor, precision: Precision, softmax: Softmax, methods: Mapping[str, Method]
) -> Scheme:
    """The scheme of a precision for a network whose batch norm is folded.

    Where residual sums are quantized so that an integer runtime can have them, the softmax is uniform for the same end.

    Raises:
        InputError: the network computes with a layer without calling it, so that its input is not seen.
    """
    names = layers(observe(folded, batch))
    unseen = {n for n, m in folded.named_modules() if isinstance(m, QUANTIZABLE)} - set(names)
    if unseen:
        raise InputError(
            f"{min(unseen)} and {len(unseen) - 1} other layers are not called as modules; choose another model"
        )
    method, sums = method_for(names, methods), residual_bits(precision, names)
    return Scheme(
        bits=resolve(precision, names),
        weights=method.weights,
        granularity=method.granularity,
        activations=method.activations,
        attention_bits=precision.activation_bits,
        softmax=softmax if sums is None else "uniform",
        residual_bits=sums,
    )


def method_for(layers: Sequence[str], methods: Mapping[str, Method]) -> Method:
    """The method of the family, `cnn` or `vit`, that layers of these names belong to."""
    return methods["vit" if is_vision_transformer(layers) else "cnn"]


def fold(network: nn.Module, input_size: tuple[int, int, int]) -> torch.Tensor:
    """Fold batch norm in place; returns the blank batch that the network was observed on."""
    batch = torch.zeros(1, *input_size)
    fold_batch_norm(network, batch)
    return batch


def attach(folded: nn.Module, batch: torch.Tensor, scheme: Scheme) -> None:
    """Put the scheme's quantizers into layers, attention and sums, in place; readers of one tensor share a quantizer.

    Nothing is quantized before the quantizers have their grids.
    """
    sharing = shared_inputs(observe(folded, batch))
    units = reconstruction_units(folded, batch, list(scheme.bits))
    quantizers: dict[str, UniformQuantizer] = {}
    for name, bits in scheme.bits.items():
        owner = sharing[name]
        if owner not in quantizers:
            symmetric = scheme.activations == "symmetric"
            quantizers[owner] = UniformQuantizer(scheme.bits[owner].activation, symmetric=symmetric)
        layer = QuantLayer(
            folded.get_submodule(name),
            bits.weight,
            quantizers[owner],
            symmetric=scheme.weights == "symmetric",
            per_tensor=scheme.granularity == "tensor",
        )
        folded.set_submodule(name, layer)
    for name, module in list(folded.named_modules()):
        attention = quantized_attention(module, scheme.attention_bits, scheme.softmax)
        if attention is not None:
            folded.set_submodule(name, attention)
    if scheme.residual_bits is not None:
        quantize_residual_sums(folded, batch, units.keys() - scheme.bits.keys(), scheme.residual_bits)


def quant_layers(network: nn.Module) -> dict[str, QuantLayer]:
    """Quantized layers by name, in order of definition."""
    return {name: module for name, module in network.named_modules() if isinstance(module, QuantLayer)}


def quantizers(network: nn.Module) -> dict[str, Quantizer]:
    """Activation quantizers by name, each once."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, UniformQuantizer | LogSqrt2Quantizer)
    }


def rounded_to_nearest(network: nn.Module) -> nn.Module:
    """A copy whose layers compute with weights rounded to nearest."""
    rounded = copy.deepcopy(network)
    for layer in quant_layers(rounded).values():
        layer.freeze(layer.nearest())
    return rounded
