"""Reconstruction units: the blocks of a network, as timm groups them, and the layers that stand outside of any."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn


def reconstruction_units(network: nn.Module, batch: torch.Tensor, layers: Sequence[str]) -> dict[str, list[str]]:
    """The layers of each unit, in order of execution, which is also the order of `layers`.

    A layer outside of all blocks is a unit. So is every layer of a block that cannot be run by itself, because it takes
    or gives more than a tensor; and every layer of a network whose blocks timm does not know.
    """
    found = {layer: re.match(rf"({block_pattern(network)})(?=\.|$)", layer) for layer in layers}
    blocks = {layer: match.group(1) for layer, match in found.items() if match}
    alone = _self_contained(network, batch, set(blocks.values()))
    units: dict[str, list[str]] = {}
    for layer in layers:
        block = blocks.get(layer)
        units.setdefault(block if block in alone else layer, []).append(layer)
    return units


def block_pattern(network: nn.Module) -> str:
    """Regular expression for the names of blocks, from the `group_matcher` that timm's networks have."""
    matcher = getattr(network, "group_matcher", None)
    groups = matcher(coarse=False) if matcher else {}
    blocks = groups.get("blocks", []) if isinstance(groups, Mapping) else []
    entries = [(blocks, None)] if isinstance(blocks, str) else blocks
    # Those with a position are single modules between the blocks, such as a norm.
    return "|".join(pattern.removeprefix("^") for pattern, position in entries if position is None) or r"(?!)"


def _self_contained(network: nn.Module, batch: torch.Tensor, names: Collection[str]) -> set[str]:
    """Modules that are called once, with one tensor and nothing else, and return a tensor."""
    calls: Counter[str] = Counter()
    simple: set[str] = set()

    def look(name: str, arguments: tuple[Any, ...], options: dict[str, Any], output: object) -> None:
        calls[name] += 1
        tensors = [isinstance(value, torch.Tensor) for value in (*arguments, output)]
        if tensors == [True, True] and not any(value is not None and value is not False for value in options.values()):
            simple.add(name)

    handles = [
        network.get_submodule(name).register_forward_hook(
            lambda _, arguments, options, output, name=name: look(name, arguments, options, output), with_kwargs=True
        )
        for name in names
    ]
    try:
        with torch.no_grad():
            network(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name for name in simple if calls[name] == 1}
