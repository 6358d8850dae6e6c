"""What a unit reads and writes, by running no more of its network than is needed."""

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
def run_unit(unit: nn.Module, inputs: Tensor, batch_size: int) -> Tensor:
    """What the unit writes for these inputs."""
    return torch.cat([unit(batch) for batch in inputs.split(batch_size)])


def _run(network: nn.Module, handle: "torch.utils.hooks.RemovableHandle", batches: Sequence[Tensor]) -> None:
    try:
        for batch in batches:
            try:
                network(batch)
            except _UnitReached:
                continue
    finally:
        handle.remove()
