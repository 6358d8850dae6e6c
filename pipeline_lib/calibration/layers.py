"""Summaries of what passes through a network while it runs: inputs of batch norms and outputs of attentions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from timm.layers import Attention
from torch import Tensor, nn


def batch_norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch-norm layers that have running statistics; timm's BatchNormAct2d is one."""
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None]


def attentions(network: nn.Module) -> list[Attention]:
    """The attentions over all tokens of an image (ViT, DeiT); not those within windows (Swin)."""
    return [module for module in network.modules() if isinstance(module, Attention)]


@dataclass
class LayerSummaries:
    """Summaries of the last forward pass, a tensor for each layer."""

    batch_norms: dict[nn.BatchNorm2d, Tensor] = field(default_factory=dict)
    attentions: dict[Attention, Tensor] = field(default_factory=dict)


@contextmanager
def summarised_layers(
    network: nn.Module,
    of_batch_norm: Callable[[nn.BatchNorm2d, Tensor], Tensor],
    of_attention: Callable[[Tensor], Tensor],
) -> Iterator[LayerSummaries]:
    """Yield summaries that every forward pass of the network fills anew, layer by layer.

    The summaries are made on the way, because the feature maps of all layers together are large. `of_batch_norm` is
    given a layer and its input, (n, channels, h, w); `of_attention` the output of an attention without class and
    register tokens, (n, patches, channels).
    """
    summaries = LayerSummaries()
    other_tokens = getattr(network, "num_prefix_tokens", 0)  # class and registers, before the patches

    def summarise_batch_norm(layer: nn.BatchNorm2d, arguments: tuple[Tensor, ...]) -> None:
        summaries.batch_norms[layer] = of_batch_norm(layer, arguments[0])

    def summarise_attention(layer: Attention, _: object, output: Tensor) -> None:
        summaries.attentions[layer] = of_attention(output[:, other_tokens:])

    handles = [layer.register_forward_pre_hook(summarise_batch_norm) for layer in batch_norms(network)]
    handles += [layer.register_forward_hook(summarise_attention) for layer in attentions(network)]
    try:
        yield summaries
    finally:
        for handle in handles:
            handle.remove()
