"""What the operators accept, and the layout in which the backends get it. Each error names the argument."""

from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant.layout import dense, laid_out_as

VALUES = (torch.float32, torch.float16, torch.bfloat16)
LEVELS = 2**15  # qmin and qmax fit 16 bits


def prepare(name: str, *arguments: Any) -> list[Any]:
    """Check the arguments of an operator; the values come back dense and laid out alike.

    Raises:
        ValueError: an argument is not what the operator needs.
    """
    if name.endswith("_backward"):
        grad, *forward = arguments
        x, *rest = prepare(name.removesuffix("_backward"), *forward)
        _exactly("grad", grad, x.dtype, tuple(x.shape), x.device)
        return [laid_out_as(grad, x), x, *rest]
    CHECKS[name](*arguments)
    x, *rest = arguments
    x = dense(x)
    if name in ("mix", "soft_round"):
        rest[0] = laid_out_as(rest[0], x)
    return [x, *rest]


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> None:
    """Check values, and a uniform grid for them: per tensor, or per channel along `axis`."""
    _values("x", x)
    _require(axis is None or 0 <= axis < x.dim(), f"axis: expected None or 0 to {x.dim() - 1}, found {axis}")
    shape = () if axis is None else (x.shape[axis],)
    _exactly("step", step, torch.float32, shape, x.device)
    _exactly("zero_point", zero_point, torch.float32, shape, x.device)
    _require(-LEVELS <= qmin <= qmax < LEVELS, f"qmin, qmax: expected 16-bit levels in order, found {qmin}, {qmax}")
    _positive("step", step)


def fake_quant_drop(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor) -> None:
    """Check values, their grid, and what draws the mask."""
    fake_quant(x, step, zero_point, qmin, qmax, None)
    _draw(x, p, seed)


def mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> None:
    """Check two tensors of a kind, and what draws the mask."""
    _values("x", x)
    _exactly("y", y, x.dtype, tuple(x.shape), x.device)
    _draw(x, p, seed)


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> None:
    """Check the variables of soft rounding, per channel on axis 0."""
    _require(v.dtype == torch.float32 and v.dim() > 0, f"v: expected float32 with a dimension, found {_describe(v)}")
    fake_quant(v, step, zero_point, qmin, qmax, 0)
    _require(base.dtype in (torch.int8, torch.int16), f"base: expected int8 or int16, found {base.dtype}")
    _exactly("base", base, base.dtype, tuple(v.shape), v.device)
    _exactly("beta", beta, torch.float32, (), v.device)
    _exactly("lam", lam, torch.float32, (), v.device)


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> None:
    """Check values, the largest of them, and the width of a logarithmic grid."""
    _values("x", x)
    _exactly("d", d, torch.float32, (), x.device)
    _require(1 <= bits <= 8, f"bits: expected 1 to 8, found {bits}")
    _positive("d", d)


CHECKS = {check.__name__: check for check in (fake_quant, fake_quant_drop, mix, soft_round, log_sqrt2_quant)}


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _describe(value: Tensor) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}"


def _values(name: str, x: Tensor) -> None:
    _require(x.dtype in VALUES, f"{name}: expected float32, float16 or bfloat16, found {x.dtype}")


def _exactly(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device) -> None:
    _require(
        value.dtype == dtype and value.shape == shape,
        f"{name}: expected {dtype} of shape {shape}, found {_describe(value)}",
    )
    _require(value.device == device, f"{name}: expected on {device} as the values, found on {value.device}")


def _positive(name: str, step: Tensor) -> None:
    # A look at the values would halt the host of a GPU; there a bad step gives NaN.
    if step.device.type == "cpu" and step.numel():
        low, high = (bound.item() for bound in torch.aminmax(step))
        _require(low > 0 and high < torch.inf, f"{name}: expected positive finite numbers, found {low} to {high}")


def _draw(x: Tensor, p: float, seed: Tensor) -> None:
    _require(0 <= p <= 1, f"p: expected a probability, found {p}")
    _exactly("seed", seed, torch.int64, (), x.device)
