"""Where a run took place: commit, machine, and what of the surroundings changes results or imports."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

VARIABLES = re.compile(
    r"OMP_NUM_THREADS|ATEN_CPU_CAPABILITY|CUDA_VISIBLE_DEVICES|(MKL|ONEDNN|DNNL|TORCH|PYTORCH|CUBLAS)_.*|PYTHON.*"
)


def variables() -> dict[str, str]:
    """The environment variables that change results or imports, as far as they are set."""
    return {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}


def torch_settings() -> dict[str, Any] | None:
    """What torch computes with; none where it is not loaded."""
    if "torch" not in sys.modules:
        return None
    import torch

    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.backends.cuda.matmul.fp32_precision,
        "convolution_precision": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]  # made at run time
    }


def operators() -> dict[str, str] | None:
    """SHA-256 by device of the compiled operators that were loaded; none where there are none."""
    build = sys.modules.get("pipeline_lib.fakequant.build")
    loaded: dict[str, str] = dict(build.loaded) if build else {}
    return loaded or None


def git(*arguments: str) -> str | None:
    """What git says; none where it fails."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
