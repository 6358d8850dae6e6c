"""Commands on what vouches for bytes: pins of weights, signatures of checkpoints."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_lib.artifacts.files import sha256
from pipeline_lib.artifacts.records import write_json
from pipeline_lib.command import guarded
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.lineage.repository import Repository
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


@app.command()
@guarded
def sign(
    checkpoint: Annotated[str, typer.Argument(help="A folder below data/quantized.")],
    key: Annotated[Path, typer.Option(help="A private key, PEM.")],
) -> None:
    """Audit a checkpoint, and sign a statement of all that made it, to data/signatures."""
    with _extra():
        from pipeline_lib.lineage.signing import private_key, signature_path
        from pipeline_lib.lineage.signing import sign as write_signed
        from pipeline_lib.lineage.statement import checkpoint_path, predicate_of, state, to_bytes

    signer, checkpoint = private_key(key), checkpoint_path(checkpoint)
    statement = state(Repository(), checkpoint)
    write_signed(to_bytes(statement), signer, signature_path(checkpoint))
    predicate = predicate_of(statement)
    print(f"real images upstream of {checkpoint}: {predicate['real_images']}")
    print(f"{signature_path(checkpoint)}: signed by {signer.public_key.keyid[:12]}, {_extent(predicate)}")


@app.command()
@guarded
def verify(
    checkpoint: Annotated[str, typer.Argument(help="A folder below data/quantized.")],
    key: Annotated[Path, typer.Option(help="The public key of who signed, PEM.")],
) -> None:
    """Check a signature, and that everything the statement names is as it was signed. Exit code 1 if not."""
    with _extra():
        from pipeline_lib.lineage.signing import public_key, signature_path, verified
        from pipeline_lib.lineage.statement import checkpoint_path, differences, from_bytes, predicate_of

    checkpoint, signer = checkpoint_path(checkpoint), public_key(key)
    statement = from_bytes(verified(signature_path(checkpoint), signer))
    found = list(differences(statement, checkpoint))
    for line in found:
        print(f"FAIL  {line}")
    if found:
        raise RunError(f"{checkpoint}: {len(found)} artifacts are not as they were signed; `git log` says what changed")
    predicate = predicate_of(statement)
    print(f"real images upstream of {checkpoint}, when it was signed: {predicate['real_images']}")
    print(f"{signature_path(checkpoint)}: signed by {signer.keyid[:12]}, {_extent(predicate)}, all as they were signed")


@contextmanager
def _extra() -> Iterator[None]:
    """Around imports of what requirements-sign.txt installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; `pip install -r requirements-sign.txt`") from None


def _extent(predicate: dict[str, Any]) -> str:
    files = sum(len(artifact["sha256"]) for artifact in predicate["artifacts"].values())
    return f"{len(predicate['stages'])} stages, {len(predicate['artifacts'])} artifacts of {files} files"
