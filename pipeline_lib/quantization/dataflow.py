"""Which module reads which tensor, observed in one forward pass: many timm models cannot be traced by torch.fx."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

QUANTIZABLE = (nn.Conv2d, nn.Linear)
NORMALISATIONS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)

Group = tuple[str, ...]  # names of modules that run one after the other


@dataclass(frozen=True)
class Key:
    """A tensor, as it was."""

    address: int
    shape: tuple[int, ...]
    version: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Call:
    """One call of a module. Equal keys are the same tensor, unchanged in between."""

    name: str
    module: nn.Module
    reads: Key
    writes: Key


def observe(network: nn.Module, batch: torch.Tensor, units: Collection[str] = ()) -> list[Call]:
    """Calls of all convolutions, linear layers and normalisations, or of the modules named, as they end."""
    calls: list[Call] = []
    kept: list[torch.Tensor] = []  # alive, so that no address is used twice
    reads: dict[str, Key] = {}

    def key(tensor: torch.Tensor) -> Key:
        kept.append(tensor)
        return Key(tensor.data_ptr(), tuple(tensor.shape), tensor._version)

    def hooks(name: str, module: nn.Module) -> Iterator[torch.utils.hooks.RemovableHandle]:
        yield module.register_forward_pre_hook(lambda _, inputs: reads.__setitem__(name, key(inputs[0])))
        yield module.register_forward_hook(
            lambda _, __, output: calls.append(Call(name, module, reads[name], key(output)))
        )

    handles = [
        handle
        for name, module in network.named_modules()
        if (name in units if units else isinstance(module, QUANTIZABLE + NORMALISATIONS))
        for handle in hooks(name, module)
    ]
    try:
        with torch.no_grad():
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def layers(calls: list[Call]) -> list[str]:
    """Names of convolutions and linear layers in order of execution."""
    return [call.name for call in calls if isinstance(call.module, QUANTIZABLE)]


def shared_inputs(calls: list[Call]) -> dict[str, str]:
    """For each layer the first layer that reads the same tensor (itself, mostly): they share a quantizer."""
    first: dict[Key, str] = {}
    return {c.name: first.setdefault(c.reads, c.name) for c in calls if isinstance(c.module, QUANTIZABLE)}


def grouped(network: nn.Module, batch: torch.Tensor, units: Sequence[str], size: int) -> tuple[list[Group], set[str]]:
    """What is reconstructed as one, in order; and the first members of those that read what the one before writes.

    A layer takes the activation that follows it along: an error that the activation clips is none. Up to `size` units
    of which each reads what the one before writes are one.
    """
    functions = {n for n, m in network.named_modules() if not list(m.children()) and not list(m.parameters())}
    calls = {call.name: call for call in observe(network, batch, {*units, *functions})}
    activations = {
        call.reads: name
        for name, call in calls.items()
        if name in functions and call.reads.shape == call.writes.shape and call.reads != call.writes
    }
    single: list[Group] = []
    for unit in units:
        follower = activations.get(calls[unit].writes) if isinstance(calls[unit].module, QUANTIZABLE) else None
        single.append((unit,) if follower is None else (unit, follower))
    chained = {b[0] for a, b in pairwise(single) if calls[b[0]].reads == calls[a[-1]].writes}
    groups: list[Group] = []
    left = 0
    for group in single:
        if left and group[0] in chained:
            groups[-1] += group
            left -= 1
        else:
            groups.append(group)
            left = size - 1
    return groups, chained
