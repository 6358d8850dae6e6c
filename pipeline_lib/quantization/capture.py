"""The inputs and outputs of a unit; of its network no more is run than is needed."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn


class _UnitReached(Exception):  # noqa: N818 no error
    """Raised to end a forward pass before the unit."""


def unit_inputs(network: nn.Module, unit: str, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the unit named `unit` reads, batch by batch, when the network is given these batches."""
    captured: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured[:] = [inputs[0]]
        raise _UnitReached

    handle = network.get_submodule(unit).register_forward_pre_hook(stop)
    try:
        for batch in batches:
            with torch.no_grad(), suppress(_UnitReached):
                network(batch)
            yield captured.pop()
    finally:
        handle.remove()


def unit_outputs(unit: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the unit writes, batch by batch, when it is given these batches."""
    for batch in batches:
        with torch.no_grad():
            output = unit(batch)
        yield output
