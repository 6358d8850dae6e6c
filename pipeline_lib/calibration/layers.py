"""What two kinds of layers see while a network runs, summed up: inputs of batch norms, outputs of attentions."""

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
    """Summaries of the last forward pass."""

    normalised: dict[nn.BatchNorm2d, Tensor] = field(default_factory=dict)
    attended: dict[Attention, Tensor] = field(default_factory=dict)


@contextmanager
def summarised_layers(
    network: nn.Module,
    of_batch_norm: Callable[[nn.BatchNorm2d, Tensor], Tensor],
    of_attention: Callable[[Tensor], Tensor],
) -> Iterator[LayerSummaries]:
    """Yield what each forward pass fills with summaries, made on the way: whole feature maps of all layers are large.

    Of a batch norm its input is summed up, (n, channels, h, w); of an attention the output of the patches, without
    class and register tokens, (n, patches, channels).
    """
    seen, prefix = LayerSummaries(), getattr(network, "num_prefix_tokens", 0)

    def normalise(layer: nn.BatchNorm2d, arguments: tuple[Tensor, ...]) -> None:
        seen.normalised[layer] = of_batch_norm(layer, arguments[0])

    def attend(layer: Attention, _: object, output: Tensor) -> None:
        seen.attended[layer] = of_attention(output[:, prefix:])

    handles = [layer.register_forward_pre_hook(normalise) for layer in batch_norms(network)]
    handles += [layer.register_forward_hook(attend) for layer in attentions(network)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
