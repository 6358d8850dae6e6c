"""The device that networks run on."""

import torch

from pipeline_lib.errors import InputError
from pipeline_lib.params.runtime import Runtime


def resolve_device(runtime: Runtime, *, tf32: bool = False) -> torch.device:
    """The device of `runtime.device`; auto is CUDA where there is one.

    On a CPU it also sets the number of threads. A GPU multiplies in float32, unless `tf32`; by itself PyTorch would use
    TF32 in convolutions.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise InputError("params.yaml: `runtime.device` is cuda, but torch sees no CUDA device; set it to auto or cpu")
    use_cuda = runtime.device != "cpu" and torch.cuda.is_available()
    if not use_cuda:
        torch.set_num_threads(runtime.threads)
    precision = "tf32" if tf32 else "ieee"
    torch.backends.cuda.matmul.fp32_precision = precision
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]  # made at run time
    return torch.device("cuda" if use_cuda else "cpu")


def place(network: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """Move a network to a device, its convolutions in channels_last, which is about three times as fast on a CPU."""
    return network.to(device).to(memory_format=torch.channels_last)
