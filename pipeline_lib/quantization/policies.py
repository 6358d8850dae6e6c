"""Bit policies: which tensors are excepted from a precision's nominal bits."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline_lib.errors import InputError
from pipeline_lib.params.reconstruct import Precision

EIGHT = 8


@dataclass(frozen=True)
class Bits:
    """Bits of one layer: of its weight, and of the tensor it reads."""

    weight: int
    activation: int


@dataclass(frozen=True)
class Policy:
    """What has eight bits whatever the precision says."""

    ends: bool  # weights and inputs of the first and the last layer
    inputs: int  # inputs of so many first layers
    sums: bool = False  # residual sums, else float; an integer runtime needs them, and a uniform softmax too


CNN_POLICIES = {
    "brecq": Policy(ends=True, inputs=2),
    "qdrop": Policy(ends=True, inputs=1),
    "deployable": Policy(ends=True, inputs=1, sums=True),
    "all": Policy(ends=False, inputs=0),
}
VIT_POLICIES = {
    "vit": Policy(ends=False, inputs=1),
    "deployable": Policy(ends=False, inputs=1, sums=True),
    "all": Policy(ends=False, inputs=0),
}


def resolve(
    precision: Precision, policy: Policy, layers: Sequence[str], first_readers: Mapping[str, str]
) -> dict[str, Bits]:
    """Bits of every layer, given in order of execution: the policy's, then the overrides, in order.

    Layers that read one tensor share its quantizer, so that its bits are those of all of them: the first reader's, or
    those of an override of any of them.

    Raises:
        InputError: an override names no layer, or two of them give one tensor different bits.
    """
    ends = {layers[0], layers[-1]} if policy.ends else set()
    wide_inputs = {*ends, *layers[: policy.inputs]}
    weights = {name: EIGHT if name in ends else precision.weight_bits for name in layers}
    inputs = {name: EIGHT if name in wide_inputs else precision.activation_bits for name in layers}
    overridden: dict[str, int] = {}
    for pattern, override in precision.overrides.items():
        matching = fnmatch.filter(layers, pattern)
        if not matching:
            raise InputError(f"params.yaml: no layer matches the override {pattern!r}; there are {', '.join(layers)}")
        for name in matching:
            if override.weight_bits is not None:
                weights[name] = override.weight_bits
            if override.activation_bits is not None:
                overridden[name] = override.activation_bits
    shared = {first: inputs[first] for first in first_readers.values()} | _of_tensors(overridden, first_readers)
    return {name: Bits(weights[name], shared[first_readers[name]]) for name in layers}


def _of_tensors(overridden: Mapping[str, int], first_readers: Mapping[str, str]) -> dict[str, int]:
    """Overridden bits by the first reader of the tensor."""
    chosen: dict[str, str] = {}  # by first reader: the layer whose override counts
    for name, bits in overridden.items():
        other = chosen.setdefault(first_readers[name], name)
        if overridden[other] != bits:
            raise InputError(
                f"params.yaml: the overrides give {other} {overridden[other]} and {name} {bits} activation bits, but "
                "both read the same tensor through one quantizer; give both the same"
            )
    return {first: overridden[name] for first, name in chosen.items()}
