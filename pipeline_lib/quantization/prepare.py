"""From a float network to the pair that everything works on: it with batch norm folded, and its quantized copy."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline_lib.models.device import place
from pipeline_lib.quantization.anatomy import Anatomy, anatomy_of
from pipeline_lib.quantization.families import Family, family_of
from pipeline_lib.quantization.folding import fold_batch_norm
from pipeline_lib.quantization.layers import QuantLayer, quant_layers
from pipeline_lib.quantization.quantizers import UniformQuantizer
from pipeline_lib.quantization.residuals import quantize_residual_sums
from pipeline_lib.quantization.scheme import Scheme


@dataclass(frozen=True)
class Prepared:
    """A network that is made ready."""

    reference: nn.Module  # float, batch norm folded
    quantized: nn.Module  # its copy with quantizers, which let values pass until they have grids
    anatomy: Anatomy
    family: Family
    scheme: Scheme

    def to(self, device: torch.device) -> "Prepared":
        """The same with its networks on a device, as `place` puts them there."""
        networks = place(self.reference, device), place(self.quantized, device)
        return Prepared(*networks, self.anatomy, self.family, self.scheme)


def prepare(
    network: nn.Module, input_size: Sequence[int], choose: Callable[[Anatomy, Family], Scheme] | Scheme
) -> Prepared:
    """Fold batch norm, in place, and put quantizers into a copy: into layers, attention and residual sums.

    `input_size`: of an image, (channels, height, width). `choose`: the scheme, or what chooses it.

    Raises:
        InputError: batch norm cannot be folded, a layer is not called as a module, or attention is of an unknown kind.
    """
    batch = torch.randn(1, *input_size, generator=torch.Generator().manual_seed(0))
    family = family_of(network)
    anatomy = anatomy_of(network, fold_batch_norm(network, batch), family.norm_before)
    scheme = choose if isinstance(choose, Scheme) else choose(anatomy, family)
    quantized = copy.deepcopy(network)
    _attach(quantized, anatomy, family, scheme)
    return Prepared(network, quantized, anatomy, family, scheme)


def _attach(network: nn.Module, anatomy: Anatomy, family: Family, scheme: Scheme) -> None:
    """Put the scheme's quantizers in, in place; layers that read one tensor share a quantizer."""
    shared = {
        first: UniformQuantizer(scheme.bits[first].activation, symmetric=scheme.activations == "symmetric")
        for first in anatomy.first_readers.values()
    }
    for name, bits in scheme.bits.items():
        layer = QuantLayer(
            network.get_submodule(name),
            bits.weight,
            shared[anatomy.first_readers[name]],
            symmetric=scheme.weights == "symmetric",
            per_tensor=scheme.granularity == "tensor",
        )
        network.set_submodule(name, layer)
    for name, module in list(network.named_modules()):
        kind = next((kind for kind in family.attention if isinstance(module, kind)), None)
        if kind is not None:
            network.set_submodule(name, family.attention[kind](module, scheme.attention_bits, scheme.softmax))
    if scheme.residual_bits is not None:
        quantize_residual_sums(network, anatomy.sums, scheme.residual_bits)


def rounded_to_nearest(network: nn.Module) -> nn.Module:
    """A copy whose layers compute with weights rounded to nearest."""
    rounded = copy.deepcopy(network)
    for layer in quant_layers(rounded).values():
        layer.freeze(layer.nearest())
    return rounded
