"""Folding of batch normalisation into the convolution before it, and of what standardises a weight into the weight."""

from collections import defaultdict

import torch
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import Tensor, nn

from pipeline_lib.errors import InputError
from pipeline_lib.quantization.anatomy import Call, Observation, TensorState, observe

TOLERANCE = 1e-3  # of the largest logit: far above what rounding to float32 does, far below a fault


def fold_batch_norm(network: nn.Module, batch: Tensor) -> Observation:
    """Fold, in place, every batch norm that reads the output of a convolution; it leaves its activation, if any.

    w' = w * gamma / sqrt(var + eps), b' = beta + (b - mean) * gamma / sqrt(var + eps). Returns what a pass of the
    folded network on the batch shows.

    Raises:
        InputError: two batch norms read one convolution, or the folded network computes something else.
    """
    before = observe(network, batch)
    for name, weight in before.computed.items():
        _settle(name, network.get_submodule(name), weight)
    for convolution, norm in _pairs(before.calls):
        _fold(network, convolution, norm)
    after = observe(network, batch)
    check_same(
        after.output,
        before.output,
        "batch norm cannot be folded into the convolutions of this network",
        "something else reads a convolution that a batch norm follows",
    )
    return after


def check_same(logits: Tensor, expected: Tensor, what: str, why: str) -> None:
    """Whether a changed network computes what it did.

    Raises:
        InputError: `what`, by how much, and `why`.
    """
    difference, largest = (logits - expected).abs().max(), expected.abs().max()
    if not difference <= TOLERANCE * largest:
        raise InputError(
            f"{what}: its logits change by up to {difference:.3g}, the largest is {largest:.3g}; {why}; choose another "
            "model"
        )


def _settle(name: str, layer: nn.Module, weight: Tensor) -> None:
    """Let a convolution that standardises its weight in every pass have the standardised one for good."""
    if not isinstance(layer, StdConv2d | StdConv2dSame | ScaledStdConv2d | ScaledStdConv2dSame):
        raise InputError(
            f"{name}: a {type(layer).__name__} computes with another weight than its own, so that it cannot be "
            "quantized yet; choose another model"
        )
    layer.__class__ = Conv2dSame if getattr(layer, "same_pad", False) else nn.Conv2d
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)


def _pairs(calls: list[Call]) -> list[tuple[nn.Conv2d, Call]]:
    """Convolutions, each with the call of the batch norm that reads what it writes."""
    convolutions = {call.writes: call for call in calls if isinstance(call.module, nn.Conv2d)}
    readers: dict[TensorState, list[Call]] = defaultdict(list)
    for call in calls:
        if isinstance(call.module, nn.modules.batchnorm._BatchNorm) and call.reads in convolutions:
            readers[call.reads].append(call)
    for tensor, norms in readers.items():
        if len(norms) > 1:
            raise InputError(
                f"{convolutions[tensor].name}: read by two batch norms, {norms[0].name} and {norms[1].name}, so that "
                "neither can be folded into it; choose another model"
            )
    modules = [convolutions[tensor].module for tensor in readers]
    return [
        (convolution, norms[0])
        for convolution, norms in zip(modules, readers.values(), strict=True)
        if isinstance(convolution, nn.Conv2d)
    ]


def _fold(network: nn.Module, convolution: nn.Conv2d, call: Call) -> None:
    norm = call.module
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    scale = norm.weight / torch.sqrt(var + norm.eps)
    bias = convolution.bias if convolution.bias is not None else torch.zeros_like(mean)
    convolution.weight = nn.Parameter(convolution.weight * scale.view(-1, 1, 1, 1), requires_grad=False)
    convolution.bias = nn.Parameter(norm.bias + (bias - mean) * scale, requires_grad=False)
    parent, _, name = call.name.rpartition(".")
    # timm's BatchNormAct2d holds the activation that follows.
    setattr(network.get_submodule(parent), name, getattr(norm, "act", nn.Identity()))
