"""What is recorded about a run but never determines its bytes."""

import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.files import dvc_digest
from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import write_json

ROOT = Path("data/provenance")


def _git(*arguments: str) -> str | None:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@contextmanager
def recorded(stage: str, name: str, packages: tuple[str, ...], outs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Write `data/provenance/<stage>/<name>.json` when the block succeeds.

    Yields a dictionary to which the block adds what it measured: device, times of units, counts. The digests of `outs`
    are as DVC computes them: a later `dvc commit -f` changes dvc.lock, not what the stage itself says it wrote.
    """
    began = time.monotonic()
    facts: dict[str, Any] = {}
    yield facts
    status = _git("status", "--porcelain", "--untracked-files=no")
    write_json(
        ROOT / stage / f"{name}.json",
        {
            "stage": stage,
            "name": name,
            "git_commit": _git("rev-parse", "HEAD"),
            "git_clean": None if status is None else status == "",
            "python": platform.python_version(),
            "packages": {package: version(package) for package in packages},
            "platform": platform.platform(),
            "processor": _processor(),
            "wall_seconds": round(time.monotonic() - began, 3),
            "peak_memory_mib": peak_memory.whole(),
            "outs": {out.as_posix(): dvc_digest(out) for out in outs},
            **facts,
        },
    )
