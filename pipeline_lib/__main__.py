"""`python -m pipeline_lib`: what DVC has no verb for."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.errors import InputError, exit_code
from pipeline_lib.params.base import PARAMS_FILE
from pipeline_lib.params.everything import read_everything

PRESETS = Path(__file__).parent / "presets"
PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "timm", "dvc", "webdataset", "pillow", "pandas")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help=f"{', '.join(sorted(p.stem for p in PRESETS.glob('*.yaml')))}.")],
) -> None:
    """Write the params.yaml of a preset, never over uncommitted edits."""
    raise typer.Exit(exit_code(lambda: _write_preset(name)))


@app.command()
def doctor() -> None:
    """Check params.yaml; print versions, processor, GPU and the operator backend."""
    raise typer.Exit(exit_code(_examine))


def _write_preset(name: str) -> None:
    presets = {path.stem: path.read_text(encoding="utf-8") for path in PRESETS.glob("*.yaml")}
    if name not in presets:
        raise InputError(f"no preset {name!r}; there are {', '.join(sorted(presets))}")
    if PARAMS_FILE.exists() and PARAMS_FILE.read_text(encoding="utf-8") not in presets.values():
        status = subprocess.run(["git", "status", "--porcelain", "--", PARAMS_FILE], capture_output=True, check=False)
        if status.returncode or status.stdout:
            raise InputError(
                f"{PARAMS_FILE} has edits that are not committed; commit or remove it, then run this again"
            )
    with atomic(PARAMS_FILE) as path:
        path.write_text(presets[name], encoding="utf-8")
    print(f"{PARAMS_FILE} is now the preset {name}")


def _examine() -> None:
    params = read_everything()
    cells = len(params.axes.sources) * len(params.axes.models) * len(params.axes.precisions)
    print(f"params.yaml: valid, {cells} cells")
    print(f"python {platform.python_version()} on {platform.platform()}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))

    import torch

    from pipeline_lib.fakequant.operators import BACKEND

    print(f"cpu: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu: {', '.join(names) or 'none; synthesis and reconstruction run on the CPU'}")
    print(f"fake-quant operators: {BACKEND}")


if __name__ == "__main__":
    app()
