"""The generalization gap: what a unit loses on the images it was calibrated on, and on labelled images it never saw."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import in_batches
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.quantization.losses import reconstruction_error
from pipeline_lib.quantization.reconstruction import NETWORK


def generalization_gap(
    reference: nn.Module,
    quantized: nn.Module,
    units: Sequence[str],
    seen: Pixels,
    unseen: Pixels,
    normalise: Normaliser,
    batch_size: int,
) -> pd.DataFrame:
    """A row a unit: its loss on calibration images and on as many labelled ones.

    Args:
        reference: the float network with batch norm folded.
        quantized: made of it.
        units: of blocks.csv.
        seen: calibration images, uint8 (n, h, w, 3).
        unseen: labelled images, uint8 (m, h, w, 3).
        normalise: as the network was trained.
        batch_size: images at a time.
    """
    names = [unit for unit in units if unit != NETWORK]
    writers = [name.split("+")[-1] for name in names]  # the last module of each unit
    losses = {}
    for name, pixels in (("calibration", seen), ("labelled", unseen[: len(seen)])):
        batches = [normalise(batch) for batch in in_batches(pixels, batch_size)]
        losses[name] = unit_losses(reference, quantized, writers, batches)
    return pd.DataFrame({"unit": names, **losses})


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
