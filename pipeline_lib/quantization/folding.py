"""Folding of batch normalisation into the convolution before it."""

import torch
from torch import nn

from pipeline_lib.quantization.dataflow import observe


def fold_batch_norm(network: nn.Module, batch: torch.Tensor) -> None:
    """Fold, in place, every batch norm that reads the output of a convolution; it leaves its activation, if any.

    w' = w * gamma / sqrt(var + eps), b' = beta + (b - mean) * gamma / sqrt(var + eps). The function stays the same.
    """
    calls = observe(network, batch)
    makers = {call.writes: call.module for call in calls if isinstance(call.module, nn.Conv2d)}
    for call in calls:
        norm, convolution = call.module, makers.get(call.reads)
        if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or convolution is None:
            continue
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
