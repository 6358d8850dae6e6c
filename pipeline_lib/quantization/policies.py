"""Bit policies: which tensors are excepted from a precision's nominal bits."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_lib.errors import InputError
from pipeline_lib.params.reconstruct import Precision

EIGHT = 8


@dataclass(frozen=True)
class Bits:
    """Of one layer: its weight, and the tensor it reads."""

    weight: int
    activation: int


def is_vision_transformer(layers: Sequence[str]) -> bool:
    """Whether the network has attention, by timm's names."""
    return any(name.endswith("attn.qkv") for name in layers)


def resolve(precision: Precision, layers: Sequence[str]) -> dict[str, Bits]:
    """Bits of every layer, given in order of execution.

    `qdrop`: weights of the first and last layer and the input of the first have 8 bits.
    `brecq`: the input of the second layer too. `vit`: the input of the patch embedding alone. `all`: no exception.
    Then the overrides, in order.

    Raises:
        InputError: an override names no layer.
    """
    policy = precision.vit_policy if is_vision_transformer(layers) else precision.cnn_policy
    eight_weights = {layers[0], layers[-1]} if policy in ("brecq", "qdrop") else set()
    eight_inputs = {"all": set(), "vit": {layers[0]}, "qdrop": {layers[0]}, "brecq": set(layers[:2])}[policy]
    bits = {
        name: Bits(
            EIGHT if name in eight_weights else precision.weight_bits,
            EIGHT if name in eight_inputs else precision.activation_bits,
        )
        for name in layers
    }
    for pattern, override in precision.overrides.items():
        matching = fnmatch.filter(layers, pattern)
        if not matching:
            raise InputError(f"params.yaml: no layer matches the override {pattern!r}; there are {', '.join(layers)}")
        for name in matching:
            weight, activation = override.weight_bits, override.activation_bits
            bits[name] = Bits(weight or bits[name].weight, activation or bits[name].activation)
    return bits
