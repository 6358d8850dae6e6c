"""What the operators accept, and the layout in which the backends get it. Each error names the argument."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant.layout import dense, laid_out_as

VALUES = (torch.float32, torch.float16, torch.bfloat16)
LEVELS = 2**15  # qmin and qmax fit 16 bits


def checked(name: str, *arguments: Any) -> list[Any]:
    """The arguments of an operator, checked; tensors with a value an element come back dense and laid out alike.

    Raises:
        ValueError: an argument is not what the operator needs.
    """
    if name.endswith("_backward"):
        grad, *forward = arguments
        x, *rest = checked(name.removesuffix("_backward"), *forward)
        _check_tensor("grad", grad, x.dtype, tuple(x.shape), x.device)
        return [laid_out_as(grad, x), x, *rest]
    CHECKS[name](*arguments)
    x, *rest = arguments
    x = dense(x)
    if name in ("mix", "soft_round"):
        rest[0] = laid_out_as(rest[0], x)
    return [x, *rest]


def _check_fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> None:
    _check_floating("x", x)
    _require(axis is None or 0 <= axis < x.dim(), f"axis: expected None or 0 to {x.dim() - 1}, found {axis}")
    shape = () if axis is None else (x.shape[axis],)
    _check_tensor("step", step, torch.float32, shape, x.device)
    _check_tensor("zero_point", zero_point, torch.float32, shape, x.device)
    _require(-LEVELS <= qmin <= qmax < LEVELS, f"qmin, qmax: expected 16-bit levels in order, found {qmin}, {qmax}")
    _check_positive("step", step)


def _check_fake_quant_drop(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> None:
    _check_fake_quant(x, step, zero_point, qmin, qmax, None)
    _check_mask(x, p, seed)


def _check_mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> None:
    _check_floating("x", x)
    _check_tensor("y", y, x.dtype, tuple(x.shape), x.device)
    _check_mask(x, p, seed)


def _check_soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> None:
    _require(
        v.dtype == torch.float32 and v.dim() > 0,
        f"v: expected float32 with a dimension, found {_dtype_and_shape(v)}",
    )
    _check_fake_quant(v, step, zero_point, qmin, qmax, 0)
    _require(base.dtype in (torch.int8, torch.int16), f"base: expected int8 or int16, found {base.dtype}")
    _check_tensor("base", base, base.dtype, tuple(v.shape), v.device)
    _check_tensor("beta", beta, torch.float32, (), v.device)
    _check_tensor("lam", lam, torch.float32, (), v.device)


def _check_log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> None:
    _check_floating("x", x)
    _check_tensor("d", d, torch.float32, (), x.device)
    _require(1 <= bits <= 8, f"bits: expected 1 to 8, found {bits}")
    _check_positive("d", d)


CHECKS: dict[str, Callable[..., None]] = {
    "fake_quant": _check_fake_quant,
    "fake_quant_drop": _check_fake_quant_drop,
    "mix": _check_mix,
    "soft_round": _check_soft_round,
    "log_sqrt2_quant": _check_log_sqrt2_quant,
}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _dtype_and_shape(value: Tensor) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}"


def _check_floating(name: str, x: Tensor) -> None:
    _require(x.dtype in VALUES, f"{name}: expected float32, float16 or bfloat16, found {x.dtype}")


def _check_tensor(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> None:
    _require(
        value.dtype == dtype and value.shape == shape,
        f"{name}: expected {dtype} of shape {shape}, found {_dtype_and_shape(value)}",
    )
    _require(value.device == device, f"{name}: expected on {device} as the values, found on {value.device}")


def _check_positive(name: str, step: Tensor) -> None:
    # On a GPU the host would wait for the values; there a bad step gives NaN instead of an error.
    if step.device.type == "cpu" and step.numel():
        low, high = (bound.item() for bound in torch.aminmax(step))
        _require(low > 0 and high < torch.inf, f"{name}: expected positive finite numbers, found {low} to {high}")


def _check_mask(x: Tensor, p: float, seed: Tensor) -> None:
    _require(0 <= p <= 1, f"p: expected a probability, found {p}")
    _check_tensor("seed", seed, torch.int64, (), x.device)
