"""Commands on what vouches for bytes: pins of weights, signatures of checkpoints."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline_lib.artifacts.files import sha256
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.command import guarded
from pipeline_lib.models.card import CARD, WEIGHTS, read_unpinned_card

app = typer.Typer()


@app.command()
@guarded
def pin(
    classifiers: Annotated[list[Path], typer.Argument(help="Folders of classifiers, each with a model.json.")],
) -> None:
    """Write into model.json what the weights are: their SHA-256, and their commit if they come from the hub."""
    for folder in classifiers:
        card, path, beside = read_unpinned_card(folder), folder / CARD, folder / WEIGHTS
        if card.sha256 is not None and (card.revision is not None or beside.exists()):
            print(f"{path}: is pinned, at SHA-256 {card.sha256[:12]}")
            continue
        if beside.exists():
            pins = {"sha256": sha256(beside)}
        else:
            from pipeline_lib.models.classifier import fetch  # imports torch

            fetched, commit = fetch(card.timm, card.revision)
            pins = {"revision": commit, "sha256": sha256(fetched)}
        write_json(path, json.loads(path.read_text(encoding="utf-8")) | pins)
        print(f"{path}: pinned, {', '.join(f'{key} {value}' for key, value in pins.items())}")
