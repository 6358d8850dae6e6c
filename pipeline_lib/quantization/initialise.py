"""The starting point of reconstruction: ranges by search, LayerNorm reparameterised, weights rounded to nearest."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pipeline_lib.params.reconstruct import Ranges
from pipeline_lib.quantization.layers import QuantLayer, quant_layers
from pipeline_lib.quantization.quantizers import UniformQuantizer, quantizers
from pipeline_lib.quantization.ranges import ActivationSample, draw, search_asymmetric

TOKENS = 1 << 10  # that the ranges of LayerNorm channels are searched on


@torch.no_grad()
def search_ranges(
    network: nn.Module, batches: Iterable[Tensor], norm_readers: Mapping[str, list[str]], ranges: Ranges
) -> None:
    """Give every quantizer its grid, from one pass over the batches, and every weight its grid.

    The channels of a LayerNorm differ too much for one step: where linear layers read one, it is reparameterised.
    `network` is one whose quantizers let values pass yet; `norm_readers`, from its anatomy, has for each such norm the
    names of the layers that read it.
    """
    behind_norms: dict[UniformQuantizer, tuple[nn.LayerNorm, list[QuantLayer]]] = {}
    layers = quant_layers(network)
    for norm_name, names in norm_readers.items():
        norm = network.get_submodule(norm_name)
        readers = [layers[name] for name in names]
        assert isinstance(norm, nn.LayerNorm)
        behind_norms[readers[0].input_quantizer] = norm, readers
    samples: dict[nn.Module, list[ActivationSample]] = {}
    tokens: dict[nn.Module, list[Tensor]] = {}

    def collect(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if quantizer in behind_norms:
            tokens.setdefault(quantizer, []).append(inputs[0].flatten(0, -2).clone())
        else:
            samples.setdefault(quantizer, []).append(ActivationSample.of(inputs[0]))

    handles = [q.register_forward_pre_hook(collect) for q in quantizers(network).values()]
    for batch in batches:
        network(batch)
    for handle in handles:
        handle.remove()
    for quantizer, (norm, readers) in behind_norms.items():
        reparameterise(norm, readers, quantizer, torch.cat(tokens[quantizer]), ranges)
    for other in quantizers(network).values():
        if other not in behind_norms:
            other.search_grid(ActivationSample.joined(samples[other]), ranges)
    for layer in layers.values():
        layer.search_grid(ranges)


def reparameterise(
    norm: nn.LayerNorm, readers: list[QuantLayer], quantizer: UniformQuantizer, tokens: Tensor, ranges: Ranges
) -> None:
    """RepQ-ViT (Li et al. 2023): one step for all channels of a LayerNorm's output, without changing the function.

    Channel c by itself would have step s_c and zero point z_c. Let s and z be their means, z rounded because a zero
    point is whole, r = s_c / s and t = z s - z_c s_c / r. The norm's weight is divided by r and its bias becomes
    bias / r - t; the weight W of a reader is multiplied by r, and its bias grows by (W r) t.

    Args:
        norm: changed in place.
        readers: layers that read the norm, changed in place.
        quantizer: the one that the readers share; it gets its grid.
        tokens: outputs of the norm, (n, channels).
        ranges: how the ranges of the channels are searched.
    """
    drawn = tokens[draw(len(tokens), TOKENS, tokens.device)]
    extremes = torch.stack(tokens.aminmax(dim=0))
    steps, zeros = search_asymmetric(extremes if ranges == "minmax" else drawn, quantizer.bits, 1, ranges)
    step, zero = steps.mean(), zeros.mean().round()
    r = steps / step
    t = zero * step - zeros * steps / r
    norm.weight = nn.Parameter(norm.weight / r, requires_grad=False)
    norm.bias = nn.Parameter(norm.bias / r - t, requires_grad=False)
    for reader in readers:
        weight = reader.weight * r
        bias = reader.layer.bias
        assert isinstance(bias, Tensor)
        reader.layer.weight = nn.Parameter(weight, requires_grad=False)
        reader.layer.bias = nn.Parameter(bias + weight @ t, requires_grad=False)
    quantizer.set_grid(step, zero)
