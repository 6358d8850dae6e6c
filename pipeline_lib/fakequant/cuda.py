"""The operators as CUDA kernels, compiled by NVRTC at first use; only the driver and torch's own wheels are needed."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cuda.bindings import nvrtc
from cuda.core import LEGACY_DEFAULT_STREAM, Kernel, LaunchConfig, ObjectCode, Program, ProgramOptions, Stream, launch
from torch import Tensor

from pipeline_lib.fakequant.build import KERNEL_CODE, BuildError, build_id, built
from pipeline_lib.fakequant.layout import runs_of
from pipeline_lib.fakequant.reference import TILE, keep_threshold

WARP, WARPS = 32, 8  # threads of a warp, most warps of a block
BLOCKS = 2048  # most blocks that share a run
RUNS = 65535  # most runs that a launch spreads over the grid; a block takes the next ones after
SHORT = 128  # elements: shorter runs of many channels leave most of a warp idle


def build(architecture: str) -> str:
    """Identity of the compiled code for `architecture`, such as sm_90: sources and NVRTC's version."""
    _, major, minor = nvrtc.nvrtcVersion()
    return build_id(architecture, f"NVRTC {major}.{minor}")


def compile_kernels(architecture: str) -> bytes:
    """The cubin of all kernels. Needs no GPU.

    Raises:
        BuildError: NVRTC is absent or refuses; the text says why.
    """
    options = ProgramOptions(arch=architecture, std="c++17", fma=False, include_path=str(KERNEL_CODE))
    try:
        code = Program((KERNEL_CODE / "kernels.cu").read_text(), "c++", options).compile("cubin").code
    except Exception as error:
        raise BuildError(f"NVRTC cannot compile the kernels for {architecture}: {str(error)[:2000]}") from None
    assert isinstance(code, bytes)
    return code


def architecture(device: torch.device) -> str:
    """The architecture of a GPU, such as sm_90."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


@functools.cache
def library(name: str) -> ObjectCode:
    """The compiled kernels of an architecture.

    Raises:
        BuildError: they cannot be compiled or stored.
    """

    def compile_to(path: Path) -> None:
        path.write_bytes(compile_kernels(name))

    return ObjectCode.from_cubin(built(f"cuda-{name}-{build(name)}.cubin", compile_to).read_bytes())


@functools.cache
def _kernel(architecture: str, name: str) -> Kernel:
    return library(architecture).get_kernel(name)


def _launch(name: str, dtype: torch.dtype | None, grid: tuple[int, ...], warps: int, *arguments: Any) -> None:
    """Launch the kernel `name` for a dtype (none: it has one for all) on torch's current stream."""
    device = next(a for a in arguments if isinstance(a, Tensor)).device
    symbol = name if dtype is None else f"{name}_{str(dtype).removeprefix('torch.')}"
    kernel = _kernel(architecture(device), symbol)
    with torch.cuda.device(device):
        handle = torch.cuda.current_stream(device).cuda_stream
        stream = Stream.from_handle(handle) if handle else LEGACY_DEFAULT_STREAM
        launch(stream, LaunchConfig(grid=grid, block=WARP * warps), kernel, *map(_kernel_argument, arguments))


def _kernel_argument(value: Any) -> Any:
    """Tensors go as pointers, Python integers as 64 bits; what has a type of numpy goes as it is."""
    if isinstance(value, Tensor):
        return value.data_ptr()
    return np.int64(value) if isinstance(value, int) else value


def _tiling(runs: int, inner: int) -> tuple[tuple[int, int], int]:
    """Grid and warps of a block for runs of `inner` elements; a function of the shape alone, so that sums are too."""
    tiles = -(-inner // TILE)
    warps = min(WARPS, tiles)
    return (min(BLOCKS, -(-tiles // warps)), min(RUNS, runs)), warps


def _grid(step: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> tuple[Any, ...]:
    return step.contiguous(), zero_point.contiguous(), np.int32(qmin), np.int32(qmax)


def _mask_arguments(p: float, seed: Tensor) -> tuple[Any, ...]:
    return np.int32(keep_threshold(p)), seed


def _sum_partials(partial: Tensor, runs: int, channels: int, blocks: int, step: Tensor) -> Tensor:
    dstep = torch.empty_like(step, memory_format=torch.contiguous_format)
    _launch("sum_partials", None, (channels,), WARPS, partial, dstep, runs, channels, blocks)
    return dstep


def fake_quant(x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    y = torch.empty_like(x)
    runs, channels, inner = runs_of(x, axis)
    shape, grid = (x, y, runs, channels, inner), _grid(step, zero_point, qmin, qmax)
    if channels > 1 and inner < SHORT:
        _launch("fake_quant_short", x.dtype, (min(BLOCKS, -(-x.numel() // 256)),), WARPS, *shape, *grid)
    else:
        _launch("fake_quant", x.dtype, *_tiling(runs, inner), *shape, *grid)
    return y


def fake_quant_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, axis: int | None
) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x)
    runs, channels, inner = runs_of(x, axis)
    grid = _grid(step, zero_point, qmin, qmax)
    if channels > 1 and inner < SHORT:
        partial = torch.empty(channels, dtype=torch.float64, device=x.device)
        arguments = (grad, x, dx, partial, runs, channels, inner, *grid)
        _launch("fake_quant_backward_short", x.dtype, (channels,), WARPS, *arguments)
        return dx, _sum_partials(partial, channels, channels, 1, step)
    tiling, warps = _tiling(runs, inner)
    partial = torch.empty(runs * tiling[0], dtype=torch.float64, device=x.device)
    _launch("fake_quant_backward", x.dtype, tiling, warps, grad, x, dx, partial, runs, channels, inner, *grid)
    return dx, _sum_partials(partial, runs, channels, tiling[0], step)


def fake_quant_drop(
    x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> Tensor:
    y, n = torch.empty_like(x), x.numel()
    grid = _grid(step, zero_point, qmin, qmax)
    _launch("fake_quant_drop", x.dtype, *_tiling(1, n), x, y, 1, 1, n, *grid, *_mask_arguments(p, seed))
    return y


def fake_quant_drop_backward(
    grad: Tensor, x: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, p: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    dx, n = torch.empty_like(x), x.numel()
    tiling, warps = _tiling(1, n)
    partial = torch.empty(tiling[0], dtype=torch.float64, device=x.device)
    arguments = (grad, x, dx, partial, 1, 1, n, *_grid(step, zero_point, qmin, qmax), *_mask_arguments(p, seed))
    _launch("fake_quant_drop_backward", x.dtype, tiling, warps, *arguments)
    return dx, _sum_partials(partial, 1, 1, tiling[0], step)


def mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> Tensor:
    mixed, n = torch.empty_like(x), x.numel()
    _launch("mix", x.dtype, *_tiling(1, n), x, y, mixed, n, *_mask_arguments(p, seed))
    return mixed


def soft_round(
    v: Tensor, base: Tensor, step: Tensor, zero_point: Tensor, qmin: int, qmax: int, beta: Tensor, lam: Tensor
) -> Tensor:
    y = torch.empty_like(v)
    runs, channels, inner = runs_of(v, 0)
    grid = _grid(step, zero_point, qmin, qmax)
    _launch("soft_round", base.dtype, *_tiling(runs, inner), v, base, y, runs, channels, inner, *grid)
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
    dv = torch.empty_like(v)
    runs, channels, inner = runs_of(v, 0)
    tiling, warps = _tiling(runs, inner)
    partial = torch.empty(runs * tiling[0], dtype=torch.float64, device=v.device)
    grid = _grid(step, zero_point, qmin, qmax)
    arguments = (grad, v, base, dv, partial, runs, channels, inner, *grid, beta, lam)
    _launch("soft_round_backward", base.dtype, tiling, warps, *arguments)
    return dv, _sum_partials(partial, runs, channels, tiling[0], step)


def log_sqrt2_quant(x: Tensor, d: Tensor, bits: int) -> Tensor:
    y, n = torch.empty_like(x), x.numel()
    _launch("log_sqrt2_quant", x.dtype, *_tiling(1, n), x, y, n, d, np.int32(2**bits))
    return y


def log_sqrt2_quant_backward(grad: Tensor, x: Tensor, d: Tensor, bits: int) -> Tensor:
    dx, n = torch.empty_like(x), x.numel()
    _launch("log_sqrt2_quant_backward", x.dtype, *_tiling(1, n), grad, x, dx, n, d, np.int32(2**bits))
    return dx
