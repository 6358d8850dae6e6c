"""Losses of a unit: what its output is held against the float unit's by. `LOSSES` has one for each `error` of a method.

To add one, write a function that makes it from what is known of the unit, give it an entry here and its name to `error`
in pipeline_lib/params/reconstruct.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.caches import UnitData
from pipeline_lib.quantization.capture import unit_outputs
from pipeline_lib.quantization.fisher import FisherError, class_gradient
from pipeline_lib.quantization.ranges import POWER_FLOOR, SMALLEST

BATCH = 64  # images of a forward pass
Loss = Callable[[Tensor, Tensor], Tensor]  # of a unit's output and the float unit's: a scalar


@dataclass(frozen=True)
class Unit:
    """What a loss may be made from. Images that are kept back are not among it."""

    data: UnitData
    nearest: Callable[[], nn.Module]  # makes a copy of the unit, rounded to nearest
    end: str  # name of the module of the network whose output is the unit's
    reference: nn.Module  # the float network
    images: Iterable[Tensor]  # batches, in the order of `data`
    classes: Callable[[], Tensor]  # logits of the float network, (images, classes)
    last: bool  # whether it writes the logits


def loss_of(unit: Unit, method: Method) -> Loss:
    """The loss that a method reconstructs a unit by."""
    if unit.last and method.head == "kl":
        return class_divergence
    return LOSSES[method.error](unit)


def reconstruction_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error, summed over dimension 1 (channels of a CNN, tokens of a ViT), mean over the rest."""
    return (output - target).square().sum(1).mean()


class RelativeError:
    """Squared error of each image by the power of its float output: large outputs count no more than others."""

    def __init__(self, median: Tensor) -> None:
        """Median power of the images, a scalar: an image that has it counts as in `reconstruction_error`."""
        self.median = median

    @staticmethod
    def power(target: Tensor) -> Tensor:
        """Mean square of each image, (n, ...) -> (n,)."""
        return target.square().mean(tuple(range(1, target.dim())))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """As `reconstruction_error`, weighted."""
        weights = self.median / (self.power(target) + POWER_FLOOR * self.median).clamp(min=SMALLEST)
        error = (output - target).square().sum(1)
        return (error * weights.view(-1, *[1] * (error.dim() - 1))).mean()


def class_divergence(output: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the classes that logits predict from those that the float network predicts."""
    return nn.functional.kl_div(output.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True)


def absolute_error(_: Unit) -> Loss:
    """The plain squared error."""
    return reconstruction_error


def relative_error(unit: Unit) -> Loss:
    """The squared error relative to the power of each image's output."""
    return RelativeError(torch.cat([RelativeError.power(x) for x in unit.data.target.batches(BATCH)]).median())


def cosine_distance(_: Unit) -> Loss:
    """How far each image's output points another way than the float one, whatever its length: 1 - cosine, a mean."""

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return (1 - nn.functional.cosine_similarity(output.flatten(1), target.flatten(1))).mean()

    return loss


def fisher_error(unit: Unit) -> Loss:
    """The error that matters to the predicted classes, made from the unit rounded to nearest."""
    nearest = unit.nearest()
    alone = unit_outputs(nearest, unit.data.float_input.batches(BATCH))
    gradient = class_gradient(unit.reference, unit.end, unit.images, alone, unit.classes())
    outputs = unit_outputs(nearest, unit.data.quantized_input.batches(BATCH))
    return FisherError(gradient, zip(outputs, unit.data.target.batches(BATCH), strict=True))


LOSSES: dict[str, Callable[[Unit], Loss]] = {
    "absolute": absolute_error,
    "relative": relative_error,
    "cosine": cosine_distance,
    "fisher": fisher_error,
}
