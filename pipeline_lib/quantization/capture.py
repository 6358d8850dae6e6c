"""What a unit reads and writes, by running its network no further than the unit."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class _UnitReached(Exception):  # noqa: N818 no error
    """Ends a forward pass at the unit."""


@torch.no_grad()
def unit_inputs(network: nn.Module, unit: str, batches: Sequence[Tensor]) -> Tensor:
    """What the unit reads, for all batches, in one tensor."""
    captured: list[Tensor] = []

    def stop(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured.append(inputs[0].clone())
        raise _UnitReached

    _run(network, network.get_submodule(unit).register_forward_pre_hook(stop), batches)
    return torch.cat(captured)


@torch.no_grad()
def unit_outputs(network: nn.Module, unit: str, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What the unit reads and what it writes, for all batches, in one tensor each."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def stop(_: nn.Module, read: tuple[Tensor, ...], written: Tensor) -> None:
        inputs.append(read[0].clone())
        outputs.append(written.clone())
        raise _UnitReached

    _run(network, network.get_submodule(unit).register_forward_hook(stop), batches)
    return torch.cat(inputs), torch.cat(outputs)


def _run(network: nn.Module, handle: "torch.utils.hooks.RemovableHandle", batches: Sequence[Tensor]) -> None:
    try:
        for batch in batches:
            try:
                network(batch)
            except _UnitReached:
                continue
    finally:
        handle.remove()
