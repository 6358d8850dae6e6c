"""Commands that measure."""

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.command import guarded
from pipeline_lib.errors import InputError
from pipeline_lib.params.everything import read_everything

if TYPE_CHECKING:
    import pandas as pd
    import torch

app = typer.Typer(no_args_is_help=True, help="Measure speed, as ratios within one run, and the accuracy of methods.")
DeviceName = Annotated[str, typer.Option("--device", help="cpu or cuda.")]


@app.command()
@guarded
def fakequant(
    device_name: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-fakequant.csv"),
) -> None:
    """Our operators against what else computes the same, and a whole step of a ResNet block; a copy gives the scale."""
    from pipeline_lib.bench.fakequant import compare_operators
    from pipeline_lib.bench.reconstruct import compare_units

    device = _device(device_name)
    _show(compare_units(device, "default", "resnet18", 64, ["layer1.0"]))
    _write(compare_operators(device), out)


@app.command()
@guarded
def reconstruct(
    model: Annotated[str, typer.Option(help="A timm name.")] = "resnet18",
    image_size: Annotated[int, typer.Option(help="Pixels.")] = 224,
    device_name: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-reconstruct.csv"),
) -> None:
    """Seconds of a reconstruction step of every unit, next to the same step in plain PyTorch."""
    from pipeline_lib.bench.reconstruct import compare_units

    device = _device(device_name)
    table = compare_units(device, "imagenet", model, image_size)
    _write(table, out)
    print(f"all units, 20,000 iterations each: {table['hours_of_20000'].sum():.1f} hours")


@app.command()
@guarded
def synthesize(
    shards: Annotated[int, typer.Option(help="Shards to render with each, beside a batch to warm up.")] = 1,
    random_sd15: Annotated[
        bool, typer.Option("--random-sd15", help="Stable Diffusion v1.5's architecture with random weights.")
    ] = False,
    device_name: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("bench-synthesize.csv"),
) -> None:
    """Our synthesis against the plain loop over diffusers' pipeline, as params.yaml describes it."""
    import torch

    from pipeline_lib.bench.synthesize import compare_loops, write_random_sd15

    params, device = read_everything(), _device(device_name)
    with TemporaryDirectory() as folder:
        generator = Path(params.task.generator)
        if random_sd15:
            write_random_sd15(generator, Path(folder) / "sd15", getattr(torch, params.synthesize.dtype))
            generator = Path(folder) / "sd15"
        _write(compare_loops(generator, params.synthesize, shards, device, Path(folder)), out)


@app.command()
@guarded
def methods(
    models: Annotated[list[str], typer.Argument(help="Folders below `task.classifiers`.")],
    precision: Annotated[list[str], typer.Option(help="Keys of `precisions` in params.yaml.")],
    method: Annotated[list[str], typer.Option(help="Keys of `methods` in params.yaml.")],
    iterations: Annotated[int, typer.Option(help="A unit, for methods that reconstruct.")] = 300,
    tune_iterations: Annotated[int, typer.Option(help="Of the whole network, for methods that tune it.")] = 300,
    seeds: Annotated[int, typer.Option(help="Runs of each.")] = 3,
    device_name: DeviceName = "cpu",
    out: Annotated[Path, typer.Option(help="CSV file to write; rows that it has are kept.")] = Path(
        "bench-methods.csv"
    ),
) -> None:
    """Accuracy of methods of reconstruction, calibrated on `task.real`, over seeds."""
    from pipeline_lib.bench.methods import compare_methods, summary
    from pipeline_lib.models.device import resolve_device

    params, device = read_everything(), _device(device_name)
    resolve_device(params.runtime.model_copy(update={"device": device_name}))  # the threads that stages have
    _show(summary(compare_methods(params, models, precision, method, iterations, tune_iterations, seeds, device, out)))
    print(f"runs in {out}")


def _device(name: str) -> "torch.device":
    import torch

    from pipeline_lib.fakequant import backend

    if name not in ("cpu", "cuda") or (name == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"--device: expected cpu, or cuda where torch sees one, found {name}")
    device = torch.device(name)
    hardware = torch.cuda.get_device_name() if name == "cuda" else f"{torch.get_num_threads()} CPU threads"
    print(f"{hardware}, torch {version('torch')}, operators {backend(device)}")
    return device


def _show(table: "pd.DataFrame") -> None:
    print(table.to_string(index=False, float_format="%.2f"))


def _write(table: "pd.DataFrame", out: Path) -> None:
    _show(table)
    with atomic(out) as path:
        table.to_csv(path, index=False)
    print(f"written to {out}")
