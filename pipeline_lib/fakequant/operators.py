"""The operators: schemas, autograd and fakes here; the backends only bring kernels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant import reference
from pipeline_lib.fakequant.arguments import checked
from pipeline_lib.fakequant.backends import kernels

_SCHEMAS = {
    "fake_quant": "(Tensor x, Tensor step, Tensor zero_point, int qmin, int qmax, int? axis) -> Tensor",
    "fake_quant_backward": (
        "(Tensor grad, Tensor x, Tensor step, Tensor zero_point, int qmin, int qmax, int? axis) -> (Tensor, Tensor)"
    ),
    "fake_quant_drop": (
        "(Tensor x, Tensor step, Tensor zero_point, int qmin, int qmax, float p, Tensor seed) -> Tensor"
    ),
    "fake_quant_drop_backward": (
        "(Tensor grad, Tensor x, Tensor step, Tensor zero_point, int qmin, int qmax, float p, Tensor seed)"
        " -> (Tensor, Tensor)"
    ),
    "soft_round": (
        "(Tensor v, Tensor base, Tensor step, Tensor zero_point, int qmin, int qmax, Tensor beta, Tensor lam) -> Tensor"
    ),
    "soft_round_backward": (
        "(Tensor grad, Tensor v, Tensor base, Tensor step, Tensor zero_point, int qmin, int qmax,"
        " Tensor beta, Tensor lam) -> (Tensor, Tensor)"
    ),
    "mix": "(Tensor x, Tensor y, float p, Tensor seed) -> Tensor",
    "log_sqrt2_quant": "(Tensor x, Tensor d, int bits) -> Tensor",
    "log_sqrt2_quant_backward": "(Tensor grad, Tensor x, Tensor d, int bits) -> Tensor",
}


_TENSOR = object()  # stands for an argument that is a tensor


def _implementation(name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        dense_arguments = checked(name, *arguments)
        x = dense_arguments[0]
        module = kernels(x.device) if x.numel() else reference
        return getattr(module, name)(*dense_arguments)

    return run


_library = torch.library.Library("mixq", "DEF")
for _name, _schema in _SCHEMAS.items():
    _library.define(_name + _schema)
    _library.impl(_name, _implementation(_name), "CompositeExplicitAutograd")


def _fake_like_first(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_like_second(grad: Tensor, x: Tensor, *_: Any) -> Tensor:  # noqa: ARG001 a backward's first argument
    return torch.empty_like(x)


def _fake_pair(grad: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    step = next(t for t in rest if t.dtype.is_floating_point)
    return torch.empty_like(x), torch.empty_like(step)


for _name in ("fake_quant", "fake_quant_drop", "mix", "soft_round", "log_sqrt2_quant"):
    torch.library.register_fake(f"mixq::{_name}", _fake_like_first, lib=_library)
torch.library.register_fake("mixq::log_sqrt2_quant_backward", _fake_like_second, lib=_library)
for _name in ("fake_quant_backward", "fake_quant_drop_backward", "soft_round_backward"):
    torch.library.register_fake(f"mixq::{_name}", _fake_pair, lib=_library)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001 torch passes it by name
    ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
    # autograd keeps the tensors; the other arguments keep their places around a gap for each tensor
    ctx.arguments = [_TENSOR if isinstance(value, Tensor) else value for value in inputs]


def _saved(ctx: Any) -> list[Any]:
    tensors = iter(ctx.saved_tensors)
    return [next(tensors) if value is _TENSOR else value for value in ctx.arguments]


def _fake_quant_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *torch.ops.mixq.fake_quant_backward(grad, *_saved(ctx)), None, None, None, None


def _fake_quant_drop_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *torch.ops.mixq.fake_quant_drop_backward(grad, *_saved(ctx)), None, None, None, None, None


def _soft_round_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    dv, dstep = torch.ops.mixq.soft_round_backward(grad, *_saved(ctx))
    return dv, None, dstep, None, None, None, None, None


def _log_sqrt2_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return torch.ops.mixq.log_sqrt2_quant_backward(grad, *_saved(ctx)), None, None


torch.library.register_autograd("mixq::fake_quant", _fake_quant_grad, setup_context=_save, lib=_library)
torch.library.register_autograd("mixq::fake_quant_drop", _fake_quant_drop_grad, setup_context=_save, lib=_library)
torch.library.register_autograd("mixq::soft_round", _soft_round_grad, setup_context=_save, lib=_library)
torch.library.register_autograd("mixq::log_sqrt2_quant", _log_sqrt2_grad, setup_context=_save, lib=_library)

fake_quant = torch.ops.mixq.fake_quant
fake_quant_drop = torch.ops.mixq.fake_quant_drop
soft_round = torch.ops.mixq.soft_round
mix = torch.ops.mixq.mix
log_sqrt2_quant = torch.ops.mixq.log_sqrt2_quant
