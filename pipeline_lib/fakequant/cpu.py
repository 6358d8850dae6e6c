"""The operators compiled by the system's C++ compiler (`CXX`, else c++), called through ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline_lib.fakequant.build import KERNEL_CODE, BuildError, build_id, built
from pipeline_lib.fakequant.layout import runs_of
from pipeline_lib.fakequant.reference import keep_threshold

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


@functools.cache
def build() -> str:
    """Identity of the compiled code: sources, flags, compiler and instruction set.

    Raises:
        BuildError: there is no C++ compiler.
    """
    return build_id(*FLAGS, _run(_compiler(), "--version"), _instruction_set())


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled operators.

    Raises:
        BuildError: they cannot be compiled or loaded; the text says why.
    """
    path = built(f"cpu-{build()}.so", _compile)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"cannot load {path}: {error}") from None


def _compiler() -> str:
    name = os.environ.get("CXX", "c++")
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"no C++ compiler {name!r}; install g++ or clang++, or set CXX")
    return path


def _instruction_set() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine() + platform.processor()
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))), "")
    return platform.machine() + hashlib.sha256(flags.encode()).hexdigest()


def _compile(path: Path) -> None:
    # Linked without -fopenmp: its runtime is the one that torch has loaded, so that both share one team of threads.
    unit = path.with_suffix(".o")
    _run(_compiler(), *FLAGS, "-fopenmp", "-c", str(KERNEL_CODE / "kernels_cpu.cpp"), "-o", str(unit))
    _run(_compiler(), "-shared", str(unit), "-o", str(path))


def _run(*command: str) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{result.stderr[-2000:]}")
    return result.stdout


def _call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call the function `name` for a dtype; its last argument is the number of threads."""
    function: Callable[..., None] = getattr(library(), f"{name}_{str(dtype).removeprefix('torch.')}")
    function(*map(_c_argument, arguments), ctypes.c_int(torch.get_num_threads()))


def _c_argument(value: Any) -> Any:
    """Tensors go as pointers, Python integers as 64 bits; what has a type of ctypes goes as it is."""
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_int64(value) if isinstance(value, int) else value


def _grid(step: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> tuple[Any, ...]:
    return step.contiguous(), zero_point.contiguous(), ctypes.c_int(qmin), ctypes.c_int(qmax)


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    y = torch.empty_like(x)
    _call("fake_quant", x.dtype, x, y, *runs_of(x, axis), *_grid(step, zero_point, qmin, qmax))
    return y


def fake_quant_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    dx, dstep = torch.empty_like(x), torch.empty_like(step)
    _call("fake_quant_backward", x.dtype, grad, x, dx, dstep, *runs_of(x, axis), *_grid(step, zero_point, qmin, qmax))
    return dx, dstep


def fake_quant_drop(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> Tensor:
    y = torch.empty_like(x)
    _call("fake_quant_drop", x.dtype, x, y, x.numel(), *_grid(step, zero_point, qmin, qmax), _threshold(p), seed)
    return y


def fake_quant_drop_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    dx, dstep = torch.empty_like(x), torch.empty_like(step)
    grid = _grid(step, zero_point, qmin, qmax)
    _call("fake_quant_drop_backward", x.dtype, grad, x, dx, dstep, x.numel(), *grid, _threshold(p), seed)
    return dx, dstep


def mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> Tensor:
    mixed = torch.empty_like(x)
    _call("mix", x.dtype, x, y, mixed, x.numel(), _threshold(p), seed)
    return mixed


def _threshold(p: float) -> ctypes.c_int:
    return ctypes.c_int(keep_threshold(p))


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> Tensor:
    y = torch.empty_like(v)
    _call("soft_round", base.dtype, v, base, y, *runs_of(v, 0), *_grid(step, zero_point, qmin, qmax))
    return y


def soft_round_backward(
    grad: Tensor,
    v: Tensor,
    base: Tensor,
    step: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    beta: Tensor,
    lam: Tensor,
) -> tuple[Tensor, Tensor]:
    dv, dstep = torch.empty_like(v), torch.empty_like(step)
    grid = _grid(step, zero_point, qmin, qmax)
    _call("soft_round_backward", base.dtype, grad, v, base, dv, dstep, *runs_of(v, 0), *grid, beta, lam)
    return dv, dstep


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    y = torch.empty_like(x)
    _call("log_sqrt2_quant", x.dtype, x, y, x.numel(), d, ctypes.c_int(2**bits))
    return y


def log_sqrt2_quant_backward(grad: Tensor, x: Tensor, d: Tensor, bits: int) -> Tensor:
    dx = torch.empty_like(x)
    _call("log_sqrt2_quant_backward", x.dtype, grad, x, dx, x.numel(), d, ctypes.c_int(2**bits))
    return dx
