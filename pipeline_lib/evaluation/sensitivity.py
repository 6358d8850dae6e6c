"""What each layer costs by itself: the float network with that layer alone quantized."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from pipeline_lib.quantization.layers import QuantLayer
from pipeline_lib.quantization.losses import class_divergence

COLUMNS = ["layer", "weight_bits", "activation_bits", "divergence"]


@torch.inference_mode()
def sensitivity(
    twin: nn.Module, quantized: nn.Module, layers: Sequence[str], batches: Sequence[Tensor]
) -> pd.DataFrame:
    """A row for each layer, with COLUMNS: its bits, and the divergence from the float network, in nats.

    The weight of the layer and the input that it reads are quantized; other layers that share its quantizer stay float.
    Operands of attention and residual sums are no layers and always stay float. The divergence is KL(float ||
    quantized) of the predicted classes, the mean over all images of the batches, which are normalised, (n, channels,
    h, w). `twin` is the float network with the modules of `quantized`; it is afterwards as it was before.
    """
    images = sum(len(batch) for batch in batches)
    targets = [twin(batch).double() for batch in batches]
    rows = []
    for name in layers:
        plain, layer = twin.get_submodule(name), quantized.get_submodule(name)
        assert isinstance(layer, QuantLayer)
        twin.set_submodule(name, layer)
        total = sum(
            float(class_divergence(twin(batch).double(), target)) * len(batch)
            for batch, target in zip(batches, targets, strict=True)
        )
        twin.set_submodule(name, plain)
        rows.append((name, layer.weight_bits, layer.input_quantizer.bits, total / images))
    return pd.DataFrame(rows, columns=COLUMNS)
