"""Products of a forward pass: what is computed outside of the layers that are quantized must not stay float unseen."""

from collections.abc import Callable, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

# Functions of PyTorch that multiply and add. Elementwise ones, such as gates, stay float as activations do.
PRODUCTS = {
    "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "tensordot", "linear", "bilinear",
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "lstm", "gru",
    "scaled_dot_product_attention", "multi_head_attention_forward",
}  # fmt: skip


class WatchedProducts(TorchFunctionMode):
    """A context in which `seen(name, arguments)` is called at every product."""

    def __init__(self, seen: Callable[[str, tuple[Any, ...]], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in PRODUCTS:
            self._seen(name, args)
        return func(*args, **(kwargs or {}))
