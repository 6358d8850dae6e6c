"""Histograms of the weights and inputs of each layer, and the ranges that its quantizers can represent."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pipeline_lib.quantization.layers import QuantLayer

BINS = 48


@torch.inference_mode()
def histograms(twin: nn.Module, quantized: nn.Module, layers: Sequence[str], batch: Tensor) -> dict[str, Any]:
    """For each layer its float `weight` and `input`: lo, hi, counts (BINS of equal width), clip_lo and clip_hi of each.

    Values below clip_lo and above clip_hi saturate; where each channel has its own step, the widest range is given.
    Operands of attention and residual sums are no layers and have no entry.

    `twin` is the float network with the modules of `quantized`; `batch` is normalised, (n, channels, h, w).
    """
    inputs: dict[str, Tensor] = {}

    def remember_input(name: str) -> RemovableHandle:
        def remember(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].clone()

        return twin.get_submodule(name).register_forward_pre_hook(remember)

    handles = [remember_input(name) for name in layers]
    twin(batch)
    for handle in handles:
        handle.remove()
    found = {}
    for name in layers:
        plain, layer = twin.get_submodule(name), quantized.get_submodule(name)
        assert isinstance(plain.weight, Tensor)
        assert isinstance(layer, QuantLayer)
        quantizer = layer.input_quantizer
        found[name] = {
            "weight": _histogram(plain.weight) | _clips(layer.step, layer.zero_point, 0, layer.qmax),
            "input": _histogram(inputs[name])
            | _clips(quantizer.step, quantizer.zero_point, quantizer.qmin, quantizer.qmax),
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
