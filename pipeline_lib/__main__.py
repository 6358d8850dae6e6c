"""`python -m pipeline_lib`: what DVC has no verb for."""

import platform
import subprocess
from importlib.metadata import version
from typing import Annotated

import typer

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.command import guarded
from pipeline_lib.commands import bench, classifier, lineage, signing
from pipeline_lib.errors import InputError
from pipeline_lib.params import everything as presets
from pipeline_lib.params.base import PARAMS_FILE
from pipeline_lib.params.everything import preset_names, read_everything

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "timm", "dvc", "webdataset", "pillow", "pandas")

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
@guarded
def preset(
    name: Annotated[str, typer.Argument(help=f"{', '.join(preset_names())}.")],
) -> None:
    """Write the params.yaml of a preset, never over uncommitted edits."""
    text = presets.preset(name)
    if PARAMS_FILE.exists() and PARAMS_FILE.read_bytes() not in (presets.preset(n).encode() for n in preset_names()):
        status = subprocess.run(["git", "status", "--porcelain", "--", PARAMS_FILE], capture_output=True, check=False)
        if status.returncode or status.stdout:
            raise InputError(f"{PARAMS_FILE} has edits that are not committed; commit them, then run this again")
    with atomic(PARAMS_FILE) as path:
        path.write_text(text, encoding="utf-8")
    print(f"{PARAMS_FILE} is now the preset {name}")


@app.command()
@guarded
def doctor() -> None:
    """Check params.yaml; print versions, processor, GPU and the operator backend."""
    params = read_everything()
    print(f"python {platform.python_version()} on {platform.platform()}")
    print(", ".join(f"{package} {version(package)}" for package in PACKAGES))

    import torch

    from pipeline_lib.fakequant import backend
    from pipeline_lib.quantization.families import check_families

    check_families(params.reconstruct, params.methods, params.precisions)
    cells = len(params.axes.sources) * len(params.axes.models) * len(params.axes.precisions)
    print(f"params.yaml: valid, {cells} cells")
    print(f"cpu: {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"gpu: {', '.join(names) or 'none; synthesis and reconstruction run on the CPU'}")
    for device in ("cpu", "cuda"):
        print(f"fake-quant operators on {device}: {backend(device)}")


app.add_typer(classifier.app)
app.add_typer(lineage.app)
app.add_typer(signing.app)
app.add_typer(bench.app, name="bench")

if __name__ == "__main__":
    app()
