"""The command that makes a classifier's folder of what training wrote."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_lib.command import guarded
from pipeline_lib.errors import InputError, reading, shown

app = typer.Typer()


@app.command()
@guarded
def import_classifier(
    file: Annotated[str, typer.Argument(help="A .safetensors, .pth, .pth.tar, .bin or .pt, or hf-hub:OWNER/NAME.")],
    classes: Annotated[int, typer.Option(min=1, help="Of the network.")],
    into: Annotated[Path, typer.Option(help="A new folder, below `task.classifiers`.")],
    timm: Annotated[
        str | None, typer.Option(help="Name in timm, or hf-hub:OWNER/NAME; none: FILE's, of the hub.")
    ] = None,
    arguments: Annotated[str, typer.Option(help="More arguments of timm.create_model, as JSON.")] = "{}",
    size: Annotated[int | None, typer.Option(help="Pixels of a side.")] = None,
    mean: Annotated[
        str | None, typer.Option(help="Of each channel, pixels from 0 to 1: 0.5,0.5,0.5; grey: 0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    crop_pct: Annotated[float | None, typer.Option(help="Share of a side that the central crop keeps.")] = None,
    interpolation: Annotated[str | None, typer.Option(help="bicubic, bilinear, ...")] = None,
) -> None:
    """Write a classifier's folder from a checkpoint: model.safetensors, model.json. Says what it assumed."""
    if timm is None and not file.startswith("hf-hub:"):
        raise InputError("--timm: expected the network's name in timm, for a file does not say it")
    options: dict[str, Any] = {
        "size": size,
        "mean": mean and _numbers("--mean", mean),
        "std": std and _numbers("--std", std),
    }
    options |= {"crop_pct": crop_pct, "interpolation": interpolation}
    given = {key: value for key, value in options.items() if value is not None}

    from pipeline_lib.commands.importing import Origin, import_classifier  # imports torch

    for line in import_classifier(Origin(file, timm, classes, _object("--arguments", arguments), given), into):
        print(line)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        expected = "numbers with commas between, as 0.5,0.5,0.5"
        raise InputError(f"{option}: expected {expected}; found {shown(text)}") from None


def _object(option: str, text: str) -> dict[str, Any]:
    with reading(option, "a JSON object", "write one, such as '{\"patch_size\": 8}'"):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise InputError(f"{option}: expected a JSON object, found {shown(text)}")
    return value
