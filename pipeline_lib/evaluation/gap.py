"""The generalization gap: the loss of each unit on the images it was calibrated on, and on labelled images."""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.prediction import in_batches
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.quantization.losses import reconstruction_error
from pipeline_lib.quantization.reconstruction import NETWORK


def generalization_gap(
    reference: nn.Module,
    quantized: nn.Module,
    units: Sequence[str],
    calibration: Pixels,
    labelled: Pixels,
    normalise: Normaliser,
    batch_size: int,
) -> pd.DataFrame:
    """A row for each unit: its loss on calibration images, and on at most as many labelled ones.

    Args:
        reference: the float network with batch norm folded.
        quantized: the network made from it.
        units: names from blocks.csv.
        calibration: images, uint8 (n, h, w, 3).
        labelled: images, uint8 (m, h, w, 3), of which the first n are used.
        normalise: as the network was trained.
        batch_size: images at a time.
    """
    names = [unit for unit in units if unit != NETWORK]
    writers = [name.split("+")[-1] for name in names]  # the last module of each unit
    losses = {}
    for name, pixels in (("calibration", calibration), ("labelled", labelled[: len(calibration)])):
        batches = [normalise(batch) for batch in in_batches(pixels, batch_size)]
        losses[name] = unit_losses(reference, quantized, writers, batches)
    return pd.DataFrame({"unit": names, **losses})


@torch.inference_mode()
def unit_losses(
    reference: nn.Module, quantized: nn.Module, units: Sequence[str], batches: Sequence[Tensor]
) -> list[float]:
    """Mean reconstruction error of each unit's output in the quantized network against its output in the reference.

    What comes before the unit is quantized too. `reference` is the float network with batch norm folded.
    """
    outputs: dict[str, Tensor] = {}
    totals = dict.fromkeys(units, 0.0)

    def remember(unit: str, output: Tensor) -> None:
        outputs[unit] = output.clone()  # activations that follow may work in place

    def compare(unit: str, output: Tensor) -> None:
        totals[unit] += float(reconstruction_error(output, outputs[unit])) * len(output)

    def at_output(network: nn.Module, unit: str, action: Callable[[str, Tensor], None]) -> RemovableHandle:
        return network.get_submodule(unit).register_forward_hook(lambda _, __, output: action(unit, output))

    handles = [at_output(reference, unit, remember) for unit in units]
    handles += [at_output(quantized, unit, compare) for unit in units]
    for batch in batches:
        reference(batch)
        quantized(batch)
    for handle in handles:
        handle.remove()
    images = sum(len(batch) for batch in batches)
    return [total / images for total in totals.values()]
