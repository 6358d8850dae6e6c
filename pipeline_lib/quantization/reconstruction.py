"""Block reconstruction: a unit's rounding and steps are learned until its output is that of the float unit.

BRECQ (Li et al. 2021) with AdaRound's soft rounding, learned activation steps, QDrop's mixing (Wei et al. 2022) and
GENIE-M's learned weight steps (Jeon et al. 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.params.reconstruct import Method, Reconstruct
from pipeline_lib.progress import notice
from pipeline_lib.quantization.caches import Feed, UnitData, choose_batches
from pipeline_lib.quantization.layers import QuantLayer, quant_layers
from pipeline_lib.quantization.losses import Loss, class_divergence
from pipeline_lib.quantization.quantizers import State, learnable_quantizers
from pipeline_lib.quantization.step import CountIterations, Step, run
from pipeline_lib.quantization.views import ViewFeed

LOSS_IMAGES, LOSS_BATCH = 256, 64  # images that a loss is measured on, and how many at a time
CURVE_POINTS = 100  # of a unit, at most
NETWORK = "network"  # the name of the whole network among the names of units


@dataclass(frozen=True)
class UnitResult:
    """A row of blocks.csv, and the unit's rows of curves.csv.

    The losses before and after are of the kind that was minimised, with all values quantized. The curve has the loss as
    it was minimised: with some values dropped and, if the method normalises it, divided by that of the first iteration.
    """

    unit: str
    loss_before: float  # rounded to nearest
    loss_after: float
    held_out_before: float
    held_out_after: float
    flipped: float  # share of integers that differ from nearest; for the whole network, from those before
    curve: list[tuple[int, float, float]]  # by stretch: its last iteration, mean loss, mean norm of the gradient


@torch.no_grad()
def unit_loss(unit: nn.Module, data: UnitData, loss: Loss) -> float:
    """Mean loss of the unit as it stands, on the quantized inputs of the first LOSS_IMAGES images."""
    measured = data.first(LOSS_IMAGES)
    batches = zip(measured.quantized_input.batches(LOSS_BATCH), measured.target.batches(LOSS_BATCH), strict=True)
    return sum(float(loss(unit(x), target)) * len(x) for x, target in batches) / len(measured.target)


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
        unit: a QuantLayer or a module that has some; the quantizers of their inputs are learned with them.
        data: inputs and target; on the last `params.held_out` images the loss is measured, but nothing is learned.
        loss: what is minimised.
        params: seed, batch size, images kept back.
        method: iterations, rates, regulariser.
        count: called after each iteration, for progress.
    """
    layers = list(quant_layers(unit).values())
    activations = [q for q in learnable_quantizers(unit) if q.state is not State.FROZEN]
    train, held_out = data.split(params.held_out)
    nearest = {layer: layer.nearest() for layer in layers}
    loss_before = _loss_with(unit, nearest, train, loss)
    held_out_before = _loss_with(unit, nearest, held_out, loss)

    if not method.iterations:
        curve, flipped = [], 0.0
        for layer, integers in nearest.items():
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
        loss_before=loss_before,
        loss_after=unit_loss(unit, train, loss),
        held_out_before=held_out_before,
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
    """Learn the steps and biases of all layers of a network together, by the divergence of the predicted classes.

    The integers are learned too if the method has a learning rate for them. All values are quantized. Each iteration
    takes new views of the images, and as their target what the float network predicts for them. A tuning that does not
    lower its own loss, on the images that it learned from, is undone: its row has the same losses before and after.

    Args:
        network: quantized, its layers frozen.
        reference: the float network.
        data: of the whole network, see `Prefix.whole`; the last `params.held_out` images as for a unit.
        params: seed, batch size, images kept back.
        method: iterations and rates of the tuning.
        count: called after each iteration, for progress.
    """
    layers = list(quant_layers(network).values())
    activations = learnable_quantizers(network)
    train, held_out = data.split(params.held_out)
    loss_before = unit_loss(network, train, class_divergence)
    held_out_before = unit_loss(network, held_out, class_divergence)
    state_before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    integers_before = [layer.integers for layer in layers]
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
    loss_after = unit_loss(network, train, class_divergence)
    held_out_after = unit_loss(network, held_out, class_divergence)
    if not loss_after < loss_before:
        notice(
            f"the tuning of the whole network is undone: its loss went from {loss_before:.4g} to {loss_after:.4g}; "
            "a lower `tune_rate` of the method, or more `tune_iterations`, may help"
        )
        network.load_state_dict(state_before)
        for layer, integers in zip(layers, integers_before, strict=True):
            layer.integers = integers
        loss_after, held_out_after, flipped = loss_before, held_out_before, 0.0
    return UnitResult(
        unit=NETWORK,
        loss_before=loss_before,
        loss_after=loss_after,
        held_out_before=held_out_before,
        held_out_after=held_out_after,
        flipped=flipped,
        curve=_thinned(step.curve[: int(step.iteration)]),
    )


def _hardened(layers: list[QuantLayer]) -> float:
    """End learning. Returns the share of all integers that learning changed."""
    changed = sum(layer.harden() * layer.integers.numel() for layer in layers)
    return changed / sum(layer.integers.numel() for layer in layers)


def _thinned(curve: Tensor) -> list[tuple[int, float, float]]:
    """Means over at most CURVE_POINTS stretches of a curve, (iterations, 2), each after its last iteration."""
    stretches = curve.cpu().tensor_split(min(CURVE_POINTS, len(curve)))
    ends = torch.tensor([len(stretch) for stretch in stretches]).cumsum(0).tolist()
    return [(end, *stretch.mean(0).tolist()) for end, stretch in zip(ends, stretches, strict=True)]


def _loss_with(unit: nn.Module, integers: dict[QuantLayer, Tensor], data: UnitData, loss: Loss) -> float:
    """The loss with these integers of its layers; the layers are float again afterwards."""
    weights = {layer: layer.weight for layer in integers}
    for layer in integers:
        layer.freeze(integers[layer])
    value = unit_loss(unit, data, loss)
    for layer, weight in weights.items():
        layer.thaw(weight)
    return value
