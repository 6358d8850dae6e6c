"""Block reconstruction: a unit's rounding and steps are learned until its output is that of the float unit.

BRECQ (Li et al. 2021) with AdaRound's soft rounding, learned activation steps, QDrop's mixing (Wei et al. 2022) and
GENIE-M's learned weight steps (Jeon et al. 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.params.reconstruct import Method, Reconstruct
from pipeline_lib.quantization.caches import Feed, UnitData, choose_batches
from pipeline_lib.quantization.layers import QuantLayer, quant_layers
from pipeline_lib.quantization.losses import Loss, class_divergence
from pipeline_lib.quantization.quantizers import State, learnable_quantizers
from pipeline_lib.quantization.step import CountIterations, Step, run
from pipeline_lib.quantization.views import ViewFeed

LOSS_IMAGES, LOSS_BATCH = 256, 64
POINTS = 100  # of a unit's curves
NETWORK = "network"  # the name of the whole where units have theirs


@dataclass(frozen=True)
class UnitResult:
    """A row of blocks.csv, and the unit's rows of curves.csv.

    Losses are of the kind that was minimised (squared error, absolute or relative, Fisher, divergence of the classes),
    with nothing dropped.
    The curves have them as they were minimised, with values dropped and, if so asked, divided by the first.
    """

    unit: str
    loss_before: float  # rounded to nearest
    loss_after: float
    held_out_before: float
    held_out_after: float
    flipped: float  # share of integers that differ from nearest; of the network, from those before
    curve: list[tuple[int, float, float]]  # last iteration of a stretch, mean loss, mean norm of the gradient in it


@torch.no_grad()
def unit_loss(unit: nn.Module, data: UnitData, loss: Loss) -> float:
    """Mean reconstruction error of the unit as it stands, on the quantized inputs of the first LOSS_IMAGES images."""
    some = data.first(LOSS_IMAGES)
    batches = zip(some.quantized_input.batches(LOSS_BATCH), some.target.batches(LOSS_BATCH), strict=True)
    return sum(float(loss(unit(x), target)) * len(x) for x, target in batches) / len(some.target)


def reconstruct_unit(
    name: str,
    unit: nn.Module,
    data: UnitData,
    loss: Loss,
    params: Reconstruct,
    method: Method,
    count: CountIterations,
) -> UnitResult:
    """Learn the unit's roundings, steps and biases, then freeze it.

    Args:
        name: of the unit, from which its seeds derive.
        unit: a QuantLayer, or a module that holds some; the quantizers they read through are learned with them.
        data: what it sees; the last `params.held_out` images are measured on alone.
        loss: that is minimised.
        params: seed, batch size, images kept back.
        method: iterations, rates, regulariser.
        count: is told of each iteration.
    """
    layers = list(quant_layers(unit).values())
    activations = [q for q in learnable_quantizers(unit) if q.state is not State.FROZEN]
    train, held_out = data.split(params.held_out)
    with_nearest = {layer: layer.nearest() for layer in layers}
    before = [_loss_with(unit, layers, with_nearest, part, loss) for part in (train, held_out)]

    if not method.iterations:
        curve, flipped = [], 0.0
        for layer, integers in with_nearest.items():
            layer.freeze(integers)
    else:
        seed = seed_of("reconstruct", params.seed, name)
        feed = Feed(train.caches, choose_batches(method.iterations, params.batch_size, len(train.target), seed))
        step = Step(unit, layers, activations, feed, method, loss, seed)
        run(step, count)
        curve = _thinned(step.curve[: int(step.iteration)])
        flipped = _hardened(layers)
    for quantizer in activations:
        quantizer.freeze()
    return UnitResult(
        unit=name,
        loss_before=before[0],
        loss_after=unit_loss(unit, train, loss),
        held_out_before=before[1],
        held_out_after=unit_loss(unit, held_out, loss),
        flipped=flipped,
        curve=curve,
    )


def tune_network(
    network: nn.Module,
    reference: nn.Module,
    data: UnitData,
    params: Reconstruct,
    method: Method,
    count: CountIterations,
) -> UnitResult:
    """Learn all steps and biases of a network of frozen layers together, by the divergence of the predicted classes.

    Its integers move with them, straight through the rounding, if they have a rate. Nothing is dropped. It learns from
    views of the images, new ones in every iteration, and what the reference, the float network, predicts for them.

    Args:
        network: quantized, its layers frozen.
        reference: the float network.
        data: of the whole, see `Prefix.whole`; the last `params.held_out` images are measured on alone.
        params: seed, batch size, images kept back.
        method: iterations of the tuning and its rates.
        count: is told of each iteration.
    """
    layers = list(quant_layers(network).values())
    activations = learnable_quantizers(network)
    train, held_out = data.split(params.held_out)
    before = [unit_loss(network, part, class_divergence) for part in (train, held_out)]
    rates = [name for name in Method.model_fields if name.startswith("learning_rate_")]
    changes: dict[str, float] = {rate: getattr(method, rate) * method.tune_rate for rate in rates}
    changes |= {"iterations": method.tune_iterations, "drop": 0.0, "normalise_loss": False}
    tuning = method.model_copy(update=changes)
    seed = seed_of("reconstruct", params.seed, NETWORK)
    choices = choose_batches(tuning.iterations, params.batch_size, len(train.target), seed)
    feed = ViewFeed(train.quantized_input, reference, choices, seed_of("views", params.seed, NETWORK))
    step = Step(network, layers, activations, feed, tuning, class_divergence, seed)
    run(step, count)
    flipped = _hardened(layers)
    for quantizer in activations:
        quantizer.freeze()
    after = [unit_loss(network, part, class_divergence) for part in (train, held_out)]
    curve = _thinned(step.curve[: int(step.iteration)])
    return UnitResult(NETWORK, before[0], after[0], before[1], after[1], flipped, curve)


def _hardened(layers: list[QuantLayer]) -> float:
    """End learning. Returns the share of all integers that it changed."""
    sizes = [layer.integers.numel() for layer in layers]
    return sum(layer.harden() * size for layer, size in zip(layers, sizes, strict=True)) / sum(sizes)


def _thinned(curve: Tensor) -> list[tuple[int, float, float]]:
    """Means of at most POINTS stretches of (iterations, 2), each with its last iteration."""
    stretches = curve.cpu().tensor_split(min(POINTS, len(curve)))
    ends = torch.tensor([len(stretch) for stretch in stretches]).cumsum(0).tolist()
    return [(end, *stretch.mean(0).tolist()) for end, stretch in zip(ends, stretches, strict=True)]


def _loss_with(
    unit: nn.Module, layers: list[QuantLayer], integers: dict[QuantLayer, Tensor], data: UnitData, loss: Loss
) -> float:
    """Loss with these integers; the layers are float again afterwards."""
    weights = [layer.weight for layer in layers]
    for layer in layers:
        layer.freeze(integers[layer])
    value = unit_loss(unit, data, loss)
    for layer, weight in zip(layers, weights, strict=True):
        layer.thaw(weight)
    return value
