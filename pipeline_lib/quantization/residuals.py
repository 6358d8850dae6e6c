"""Residual sums. timm adds with an operator, inside of a block, where no module can be put."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipeline_lib.quantization.quantizers import UniformQuantizer


class _Sums(TorchFunctionMode):
    """Gives every sum of two activations of one shape to a function. What else has two of them uses torch.add."""

    def __init__(self, replace: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._replace = replace

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in (Tensor.add, Tensor.add_) or not isinstance(args[1], Tensor):
            return result
        return self._replace(result) if result.dim() > 2 and args[0].shape == args[1].shape else result


def watched_sums(count: Callable[[], None]) -> TorchFunctionMode:
    """A context in which `count` is called at every residual sum."""

    def unchanged(total: Tensor) -> Tensor:
        count()
        return total

    return _Sums(unchanged)


class _QuantizedSums(nn.Module):
    """Before a block's own class: its sums go through `residual_sums`, in order."""

    residual_sums: nn.ModuleList

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """The block's."""
        quantizers = iter(self.residual_sums)
        with _Sums(lambda total: next(quantizers)(total)):
            return super().forward(*arguments, **options)


def quantize_residual_sums(network: nn.Module, sums: Mapping[str, int], bits: int) -> None:
    """Put a quantizer on every sum that these blocks compute, in place; `sums` has the number of sums by block."""
    for name, count in sums.items():
        block = network.get_submodule(name)
        block.residual_sums = nn.ModuleList(UniformQuantizer(bits, symmetric=False) for _ in range(count))
        block.__class__ = type(f"Quantized{type(block).__name__}", (_QuantizedSums, type(block)), {})
