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


@app.command()
def bench(
    subject: Annotated[str, typer.Argument(help="fakequant.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-fakequant.csv"),
) -> None:
    """Compare our operators with what else computes the same; a copy in the same run gives the scale."""
    raise typer.Exit(exit_code(lambda: _bench(subject, device, out)))


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

    from pipeline_lib.fakequant import backend

    print(f"cpu: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu: {', '.join(names) or 'none; synthesis and reconstruction run on the CPU'}")
    for device in ("cpu", "cuda"):
        print(f"fake-quant operators on {device}: {backend(device)}")


def _bench(subject: str, device_name: str, out: Path) -> None:
    if subject != "fakequant":
        raise InputError(f"no benchmark {subject!r}; there is fakequant")
    import torch

    from pipeline_lib.bench.fakequant import compare_operators
    from pipeline_lib.bench.step import compare_steps
    from pipeline_lib.fakequant import backend

    if device_name not in ("cpu", "cuda") or (device_name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device: expected cpu, or cuda where torch sees one, found {device_name}")
    device = torch.device(device_name)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{name}, torch {version('torch')}, operators {backend(device)}")
    steps = compare_steps(device, PRESETS / "default.yaml")
    print(steps.to_string(index=False, float_format="%.2f"))
    table = compare_operators(device)
    print(table.to_string(index=False, float_format="%.2f"))
    with atomic(out) as path:
        table.to_csv(path, index=False)
    print(f"written to {out}")


if __name__ == "__main__":
    app()
