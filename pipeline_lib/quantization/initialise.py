"""The starting point of reconstruction: ranges by search, LayerNorm reparameterised, weights rounded to nearest."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from pipeline_lib.params.reconstruct import Ranges
from pipeline_lib.quantization.attach import quant_layers, quantizers
from pipeline_lib.quantization.dataflow import Call
from pipeline_lib.quantization.quantizers import QuantLayer, UniformQuantizer
from pipeline_lib.quantization.ranges import Sample, draw, search_asymmetric

ROWS = 1 << 10  # tokens that the ranges of LayerNorm channels are searched on


def layer_norm_readers(calls: Sequence[Call]) -> dict[str, list[str]]:
    """For each LayerNorm whose output linear layers read, the names of those layers.

    Swin cuts the output of norm1 into windows in between: that moves tokens and changes none, unless it pads, when the
    sizes differ.
    """
    norms = {call.writes: call for call in calls if isinstance(call.module, nn.LayerNorm)}
    by_name = {call.name: call for call in norms.values()}
    readers: dict[str, list[str]] = {}
    for call in calls:
        if not isinstance(call.module, nn.Linear):
            continue
        windowed = by_name.get(call.name.removesuffix("attn.qkv") + "norm1")
        norm = norms.get(call.reads) or windowed
        if norm is not None and call.reads.size == norm.writes.size:
            readers.setdefault(norm.name, []).append(call.name)
    return readers


@torch.no_grad()
def search_ranges(
    network: nn.Module, batches: Iterable[Tensor], norm_readers: dict[str, list[str]], how: Ranges
) -> None:
    """Give every quantizer its grid, from one pass of the float network, and every weight its grid.

    Where LayerNorm feeds linear layers its channels differ too much for one step: the norm is reparameterised.
    """
    normalised: dict[nn.Module, tuple[nn.LayerNorm, list[QuantLayer]]] = {}
    layers = quant_layers(network)
    for norm_name, names in norm_readers.items():
        norm, readers = network.get_submodule(norm_name), [layers[name] for name in names]
        assert isinstance(norm, nn.LayerNorm)
        normalised[readers[0].input_quantizer] = norm, readers
    samples: dict[nn.Module, list[Sample]] = {}
    tokens: dict[nn.Module, list[Tensor]] = {}

    def collect(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if quantizer in normalised:
            tokens.setdefault(quantizer, []).append(inputs[0].flatten(0, -2).clone())
        else:
            samples.setdefault(quantizer, []).append(Sample.of(inputs[0]))

    handles = [q.register_forward_pre_hook(collect) for q in quantizers(network).values()]
    for batch in batches:
        network(batch)
    for handle in handles:
        handle.remove()
    for quantizer in quantizers(network).values():
        if isinstance(quantizer, UniformQuantizer) and quantizer in normalised:
            reparameterise(*normalised[quantizer], quantizer, torch.cat(tokens[quantizer]), how)
        else:
            quantizer.search_grid(Sample.joined(samples[quantizer]), how)
    for layer in layers.values():
        layer.search_grid(how)


def reparameterise(
    norm: nn.LayerNorm, readers: list[QuantLayer], quantizer: UniformQuantizer, tokens: Tensor, how: Ranges
) -> None:
    """RepQ-ViT (Li et al. 2023): one step for all channels of a LayerNorm's output, without changing the function.

    tokens: (n, channels). With per-channel steps s_c and zero points z_c, s and z their means (z rounded: a
    fractional zero point is no integer grid), r = s_c / s and t = z s - z_c s_c / r: the norm's weight is divided by
    r, its bias becomes bias / r - t, the readers' weight is multiplied by r and their bias grows by (W r) t.
    """
    steps, zeros = search_asymmetric(tokens[draw(len(tokens), ROWS, tokens.device)], quantizer.bits, 1, how)
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
