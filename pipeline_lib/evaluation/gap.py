"""The generalization gap: what a unit loses on the images it was calibrated on, and on labelled images it never saw."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.quantization.step import reconstruction_error


@torch.inference_mode()
def unit_losses(
    reference: nn.Module, quantized: nn.Module, units: Sequence[str], batches: Sequence[Tensor]
) -> list[float]:
    """Mean reconstruction error of each unit's output, the whole network before it quantized too.

    reference: the float network with batch norm folded, as the units were reconstructed against it.
    """
    outputs: dict[str, Tensor] = {}
    totals = dict.fromkeys(units, 0.0)

    def remember(unit: str, output: Tensor) -> None:
        outputs[unit] = output.clone()  # activations that follow may work in place

    def compare(unit: str, output: Tensor) -> None:
        totals[unit] += float(reconstruction_error(output, outputs[unit])) * len(output)

    handles = [
        network.get_submodule(unit).register_forward_hook(lambda _, __, output, u=unit, a=action: a(u, output))
        for network, action in ((reference, remember), (quantized, compare))
        for unit in units
    ]
    for batch in batches:
        reference(batch)
        quantized(batch)
    for handle in handles:
        handle.remove()
    images = sum(len(batch) for batch in batches)
    return [total / images for total in totals.values()]
