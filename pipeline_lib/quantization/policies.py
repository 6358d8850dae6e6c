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


def policy_of(precision: Precision, layers: Sequence[str]) -> str:
    """The policy for the family that layers of these names belong to."""
    return precision.vit_policy if is_vision_transformer(layers) else precision.cnn_policy


def residual_bits(precision: Precision, layers: Sequence[str]) -> int | None:
    """Bits of residual sums; nothing where they stay float."""
    return EIGHT if policy_of(precision, layers) == "deployable" else None


def resolve(precision: Precision, layers: Sequence[str]) -> dict[str, Bits]:
    """Bits of every layer, given in order of execution.

    `qdrop`: weights and inputs of the first and last layer have 8 bits. `brecq`: the input of the second layer too.
    `vit`: the input of the patch embedding alone. `all`: no exception. `deployable`: as `qdrop`, or `vit`, and see
    `residual_bits`. Then the overrides, in order.

    Raises:
        InputError: an override names no layer.
    """
    policy = policy_of(precision, layers)
    ends = {layers[0], layers[-1]} if policy != "all" and not is_vision_transformer(layers) else set()
    inputs = {*ends, *layers[: {"all": 0, "brecq": 2}.get(policy, 1)]}
    bits = {
        name: Bits(
            EIGHT if name in ends else precision.weight_bits,
            EIGHT if name in inputs else precision.activation_bits,
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
