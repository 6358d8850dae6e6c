"""What a unit reads and writes, by running no more of its network than is needed."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn


class _UnitReached(Exception):  # noqa: N818 no error
    """Ends a forward pass at the unit."""


def unit_inputs(network: nn.Module, unit: str, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """What the unit reads, batch by batch."""
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
    """What the unit writes, batch by batch."""
    for batch in batches:
        with torch.no_grad():
            output = unit(batch)
        yield output
