"""Which implementation runs on a device, and why not a better one."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch

from pipeline_lib.fakequant import cpu, reference
from pipeline_lib.fakequant.build import BuildError

_reference_only = False


@dataclass(frozen=True)
class Backend:
    """What runs the operators on a device; it goes into the provenance of every quantized network."""

    kind: Literal["compiled", "reference"]
    build: str = ""  # identity of the compiled code
    reason: str = ""  # why it is not compiled

    def __str__(self) -> str:
        """One line for people."""
        return f"compiled, build {self.build}" if self.kind == "compiled" else f"reference: {self.reason}"


def backend(device: torch.device | str) -> Backend:
    """The backend of a device. The first call compiles it if need be; a failure is said once, as a warning."""
    device = torch.device(device)
    if _reference_only:
        return Backend("reference", reason="asked for")
    if device.type == "cuda" and torch.cuda.is_available():
        return _cuda(device.index if device.index is not None else torch.cuda.current_device())
    return _cpu() if device.type == "cpu" else Backend("reference", reason=f"torch sees no {device.type} device")


def kernels(device: torch.device) -> ModuleType:
    """The module that holds the backend's operators."""
    if backend(device).kind == "reference":
        return reference
    if device.type == "cpu":
        return cpu
    from pipeline_lib.fakequant import cuda

    return cuda


@contextmanager
def reference_only() -> Iterator[None]:
    """Run the reference on every device, to compare with it."""
    global _reference_only
    _reference_only = True
    try:
        yield
    finally:
        _reference_only = False


@functools.cache
def _cpu() -> Backend:
    try:
        cpu.library()
    except BuildError as error:
        return _fall_back("CPU", str(error))
    return Backend("compiled", cpu.build())


@functools.cache
def _cuda(index: int) -> Backend:
    try:
        from pipeline_lib.fakequant import cuda
    except ImportError as error:
        return _fall_back("CUDA", f"cuda.core is not installed ({error}); pip install cuda-core")
    architecture = cuda.architecture(torch.device("cuda", index))
    try:
        cuda.library(architecture)
    except BuildError as error:
        return _fall_back("CUDA", str(error))
    return Backend("compiled", cuda.build(architecture))


def _fall_back(device: str, reason: str) -> Backend:
    warnings.warn(f"no compiled fake-quant operators on {device}, the reference runs: {reason}", stacklevel=4)
    return Backend("reference", reason=reason)
