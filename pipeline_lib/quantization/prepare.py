"""From a float network to the pair that everything works on: it with batch norm folded, and its quantized copy."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.device import place
from pipeline_lib.quantization.anatomy import Anatomy, Observation, anatomy_of
from pipeline_lib.quantization.families import Family, family_of
from pipeline_lib.quantization.folding import check_same, fold_batch_norm
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
        InputError: batch norm cannot be folded, a layer is not called as a module, attention is of an unknown kind,
            something multiplies outside of layers, or the copy does not compute what the network does.
    """
    batch = torch.randn(1, *input_size, generator=torch.Generator().manual_seed(0))
    family = family_of(network)
    seen = fold_batch_norm(network, batch)
    anatomy = anatomy_of(network, seen, family.norm_before)
    _check_products(network, seen, family)
    scheme = choose if isinstance(choose, Scheme) else choose(anatomy, family)
    quantized = copy.deepcopy(network)
    _attach(quantized, anatomy, family, scheme)
    with torch.no_grad():
        check_same(quantized(batch), seen.output, "the quantized form computes something else", "a layer is not known")
    return Prepared(network, quantized, anatomy, family, scheme)


def check_quantizable(
    network: nn.Module, input_size: Sequence[int], choose: Callable[[Anatomy, Family], Scheme] | Scheme
) -> None:
    """Whether a network can be quantized, told in seconds: it is prepared as `prepare` does it, on a copy.

    Raises:
        InputError: as `prepare`.
    """
    prepare(copy.deepcopy(network), input_size, choose)


def _check_products(network: nn.Module, seen: Observation, family: Family) -> None:
    for running, function in seen.outside.items():
        modules = [network.get_submodule(name) for name in running]
        if not any(isinstance(module, tuple(family.attention)) for module in modules):
            kind = type(modules[-1] if modules else network).__name__
            raise InputError(
                f"{running[-1] if running else 'the network'}: {kind} multiplies ({function}) outside of "
                "convolutions, linear layers and known attention, which cannot be quantized yet; choose another model"
            )


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
