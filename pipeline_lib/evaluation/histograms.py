"""Histograms of what each layer multiplies, and the ranges that its quantizers can represent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline_lib.quantization.layers import QuantLayer

BINS = 48


@torch.inference_mode()
def histograms(twin: nn.Module, quantized: nn.Module, layers: Sequence[str], batch: Tensor) -> dict[str, Any]:
    """For each layer `weight` and `input`, float, each with lo, hi, counts (BINS of equal width), clip_lo and clip_hi.

    What is beyond the clip lines saturates; of steps a channel they are the widest. Operands of attention and residual
    sums are no layers and have no entry.
    """
    inputs: dict[str, Tensor] = {}
    handles = [
        twin.get_submodule(name).register_forward_pre_hook(
            lambda _, arguments, name=name: inputs.__setitem__(name, arguments[0].clone())
        )
        for name in layers
    ]
    twin(batch)
    for handle in handles:
        handle.remove()
    found = {}
    for name in layers:
        plain, layer = twin.get_submodule(name), quantized.get_submodule(name)
        assert isinstance(plain.weight, Tensor)
        assert isinstance(layer, QuantLayer)
        reads = layer.input_quantizer
        found[name] = {
            "weight": _histogram(plain.weight) | _clips(layer.step, layer.zero_point, 0, layer.qmax),
            "input": _histogram(inputs[name]) | _clips(reads.step, reads.zero_point, reads.qmin, reads.qmax),
        }
    return found


def _histogram(values: Tensor) -> dict[str, Any]:
    counts, edges = np.histogram(values.detach().cpu().numpy(), BINS)
    return {"lo": float(edges[0]), "hi": float(edges[-1]), "counts": counts.tolist()}


def _clips(step: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> dict[str, float]:
    """The lowest and the highest value on the grid, over all steps."""
    return {
        "clip_lo": float((step * (qmin - zero_point)).min()),
        "clip_hi": float((step * (qmax - zero_point)).max()),
    }
