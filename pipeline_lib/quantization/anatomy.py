"""The structure of a network, observed in one forward pass: many timm models cannot be traced by torch.fx."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.blocks import block_pattern
from pipeline_lib.quantization.products import WatchedProducts
from pipeline_lib.quantization.residuals import watched_sums

QUANTIZABLE = (nn.Conv2d, nn.Linear)

Group = tuple[str, ...]  # names of modules that run one after the other


@dataclass(frozen=True)
class TensorState:
    """A tensor as it was: two of them are equal if they are the same tensor, unchanged in between."""

    address: int
    shape: tuple[int, ...]
    version: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Call:
    """One call of a module whose first input and whose output are tensors."""

    name: str
    module: nn.Module
    reads: TensorState
    writes: TensorState
    alone: bool  # nothing else went in


@dataclass(frozen=True)
class Observation:
    """What one forward pass showed."""

    calls: list[Call]  # in the order in which they ended
    sums: Counter[str]  # residual sums within each module, by its name
    computed: dict[str, Tensor]  # by layer: the weight that it computed with, if that is not simply its own
    outside: dict[tuple[str, ...], str]  # products outside of layers, by the modules that ran then, outermost first
    output: Tensor


@torch.no_grad()
def observe(network: nn.Module, batch: Tensor) -> Observation:
    """Run the network on a batch and record the calls of all of its modules."""
    calls: list[Call] = []
    sums: Counter[str] = Counter()
    computed: dict[str, Tensor] = {}
    outside: dict[tuple[str, ...], str] = {}
    constants = {buffer.untyped_storage().data_ptr() for buffer in network.buffers()}
    kept: list[Tensor] = []  # alive, so that no address is used twice
    running: list[tuple[str, TensorState | None]] = []

    def state(value: object) -> TensorState | None:
        if not isinstance(value, Tensor):
            return None
        kept.append(value)
        return TensorState(value.data_ptr(), tuple(value.shape), value._version)

    def begin(name: str, arguments: tuple[Any, ...]) -> None:
        running.append((name, state(arguments[0]) if arguments else None))

    def end(name: str, module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: object) -> None:
        reads, writes = running.pop()[1], state(output)
        if reads is not None and writes is not None:
            unset = all(value is None or value is False for value in options.values())
            calls.append(Call(name, module, reads, writes, len(arguments) == 1 and unset))

    def multiply(function: str, arguments: tuple[Any, ...]) -> None:
        name = running[-1][0] if running else ""
        module, weight = network.get_submodule(name), arguments[1] if len(arguments) > 1 else None
        if isinstance(module, QUANTIZABLE):
            if weight is not module.weight:
                assert isinstance(weight, Tensor)
                computed[name] = weight
        elif not isinstance(weight, Tensor) or weight.untyped_storage().data_ptr() not in constants:
            outside.setdefault(tuple(name for name, _ in running), function)

    sums_seen = watched_sums(lambda: sums.update({name for name, _ in running}))
    with hooked(network, begin, end), sums_seen, WatchedProducts(multiply):
        output = network(batch)
    return Observation(calls, sums, computed, outside, output)


@contextmanager
def hooked(network: nn.Module, begin: Callable[..., None], end: Callable[..., None]) -> Iterator[None]:
    """Call `begin(name, arguments)` and `end(name, module, arguments, options, output)` around each module's call."""
    handles = []
    for name, module in network.named_modules():
        if name:
            handles += [
                module.register_forward_pre_hook(lambda _, arguments, name=name: begin(name, arguments)),
                module.register_forward_hook(
                    lambda module, arguments, options, output, name=name: end(name, module, arguments, options, output),
                    with_kwargs=True,
                ),
            ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Anatomy:
    """The structure of a network whose batch norm is folded."""

    layers: list[str]  # convolutions and linear layers, in order of execution
    first_readers: dict[str, str]  # by layer: the first layer that reads the same tensor, most often itself
    norm_readers: dict[str, list[str]]  # by LayerNorm: the linear layers that read its output
    units: dict[str, list[str]]  # by unit of reconstruction: its layers; both in order of execution
    activations: dict[str, str]  # by unit that is a layer: the activation that alone reads what it writes
    chained: frozenset[str]  # units that read what the unit before, with its activation, writes
    sums: dict[str, int]  # by block: residual sums that it computes

    @property
    def has_blocks(self) -> bool:
        """Whether timm knows blocks of the network."""
        return not set(self.units) <= set(self.layers)

    def groups(self, size: int) -> list[Group]:
        """What is reconstructed as one, in order: up to `size` units of which each reads what the one before writes.

        A layer takes the activation that follows it along: an error that the activation clips is none.
        """
        groups: list[Group] = []
        room = 0  # units that the last group may still take
        for unit in self.units:
            members = (unit, self.activations[unit]) if unit in self.activations else (unit,)
            if room and unit in self.chained:
                groups[-1] += members
                room -= 1
            else:
                groups.append(members)
                room = size - 1
        return groups


def anatomy_of(network: nn.Module, seen: Observation, norm_before: Callable[[str], str | None]) -> Anatomy:
    """What an observation of a network, batch norm folded, says of its structure.

    `norm_before`: of a layer's name, the LayerNorm whose output is rearranged before the layer reads it, if any.

    Raises:
        InputError: the network computes with a layer without calling it, so that its input is not seen.
    """
    calls = [call for call in seen.calls if isinstance(call.module, QUANTIZABLE)]
    layers = list(dict.fromkeys(call.name for call in calls))
    uncalled = {name for name, module in network.named_modules() if isinstance(module, QUANTIZABLE)} - set(layers)
    if uncalled:
        raise InputError(
            f"{min(uncalled)} and {len(uncalled) - 1} other layers are not called as modules; choose another model"
        )
    readers: dict[TensorState, str] = {}
    first_readers = {call.name: readers.setdefault(call.reads, call.name) for call in calls}
    units = _units(network, layers, seen.calls)
    activations, chained = _order(network, list(units), seen.calls)
    return Anatomy(
        layers=layers,
        first_readers=first_readers,
        norm_readers=_norm_readers(seen.calls, norm_before),
        units=units,
        activations=activations,
        chained=chained,
        sums={unit: seen.sums[unit] for unit in units if unit not in layers and seen.sums[unit]},
    )


def _units(network: nn.Module, layers: Sequence[str], calls: Sequence[Call]) -> dict[str, list[str]]:
    """The layers of each unit.

    A layer outside of all blocks is a unit. So is every layer of a block that cannot be run by itself, because it takes
    or gives more than a tensor; and every layer of a network whose blocks timm does not know.
    """
    times = Counter(call.name for call in calls)
    self_contained = {call.name for call in calls if call.alone and times[call.name] == 1}
    pattern = re.compile(rf"({block_pattern(network)})(?=\.|$)")
    units: dict[str, list[str]] = {}
    for layer in layers:
        block = pattern.match(layer)
        unit = block.group(1) if block and block.group(1) in self_contained else layer
        units.setdefault(unit, []).append(layer)
    return units


def _order(network: nn.Module, units: Sequence[str], calls: Sequence[Call]) -> tuple[dict[str, str], frozenset[str]]:
    """The activations behind units that are layers, and the units that read what the one before writes."""
    functions = {n for n, m in network.named_modules() if not list(m.children()) and not list(m.parameters())}
    by_name = {call.name: call for call in calls if call.name in functions or call.name in units}
    by_input = {
        call.reads: name
        for name, call in by_name.items()
        if name in functions and call.reads.shape == call.writes.shape and call.reads != call.writes
    }
    activations = {
        unit: by_input[by_name[unit].writes]
        for unit in units
        if isinstance(by_name[unit].module, QUANTIZABLE) and by_name[unit].writes in by_input
    }
    chained = {
        unit
        for before, unit in pairwise(units)
        if by_name[unit].reads == by_name[activations.get(before, before)].writes
    }
    return activations, frozenset(chained)


def _norm_readers(calls: Sequence[Call], norm_before: Callable[[str], str | None]) -> dict[str, list[str]]:
    """A layer reads a LayerNorm's output as it is, or rearranged: then the sizes are equal, unless there is padding."""
    norms = {call.writes: call for call in calls if isinstance(call.module, nn.LayerNorm)}
    by_name = {call.name: call for call in norms.values()}
    readers: dict[str, list[str]] = {}
    for call in calls:
        if not isinstance(call.module, nn.Linear):
            continue
        norm = norms.get(call.reads) or by_name.get(norm_before(call.name) or "")
        if norm is not None and call.reads.size == norm.writes.size:
            readers.setdefault(norm.name, []).append(call.name)
    return readers
