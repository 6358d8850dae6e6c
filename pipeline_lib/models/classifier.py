"""Classifiers of timm, from a folder that ships or from the hub."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download

from pipeline_lib.artifacts.files import sha256
from pipeline_lib.errors import InputError, one_line, refusing, shown
from pipeline_lib.models.card import CARD, WEIGHTS, Card, read_card, resolve_data_config
from pipeline_lib.models.weights import check_finite, check_runs, load_weights, read_tensors


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with timm's data config: input_size, interpolation, mean, std, crop."""

    network: torch.nn.Module
    data_config: dict[str, Any]


def build(card: Card, where: Path, *, weights: Path | None = None) -> torch.nn.Module:
    """The architecture, with random weights, or with those of a file as timm's hub has them.

    `where` the card stands is named in errors.

    Raises:
        InputError: timm does not know the model or its arguments, or the weights are of another.
    """
    check_known(card.timm, where)
    # JSON has lists where timm wants tuples.
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in card.arguments.items()}
    if weights is not None:  # `custom_load` is for other files than safetensors
        _check_classes(card, where)
        overlay = {"file": str(weights), "custom_load": False}
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    with refusing(lambda error: f"{where}: timm cannot build {card.timm!r}: {_of_torch(error)}"):
        network = timm.create_model(card.timm, num_classes=card.num_classes, **arguments)
    frozen: torch.nn.Module = network.eval().requires_grad_(False)
    return frozen


def check_known(name: str, where: Path | str) -> None:
    """Whether timm has a model of the name, whatever its tag.

    Raises:
        InputError: it has not.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), 3)
        raise InputError(f"{where}: timm has no model {shown(base)}; close names: {', '.join(close) or 'none'}")


def load_classifier(folder: Path) -> Classifier:
    """The network of a classifier's folder, in evaluation mode, on the CPU: it has classified an image of its size.

    Raises:
        InputError: the weights are absent, altered, not finite, or of another shape than the network's; or it cannot
            take images as model.json describes them.
    """
    card, beside = read_card(folder), folder / WEIGHTS
    if beside.exists() or beside.is_symlink():  # a link to nothing is an error, no reason to take other weights
        _check_digest(beside, card)
        network = build(card, folder / CARD)
        load_weights(network, read_tensors(beside, "take a whole copy of it"), beside)
    elif card.revision is not None:
        fetched, _ = fetch(card.timm, card.revision)
        _check_digest(fetched, card)
        network = build(card, folder / CARD, weights=fetched)
        check_finite(network, fetched)
    else:
        raise InputError(
            f"{beside}: weights not found; `git checkout -- {beside}` restores what ships, "
            f"`python -m pipeline_lib pin {folder}` pins what the hub has, and `import-classifier` takes other files"
        )
    data_config = resolve_data_config(folder)
    check_runs(network, data_config["input_size"], card.num_classes, folder / CARD)
    return Classifier(network, data_config)


def fetch(name: str, revision: str | None) -> tuple[Path, str]:
    """The weights of a timm name in the hub's cache, downloaded unless they are there, and their commit.

    `revision` is a commit; none: that of the repository's main branch.

    Raises:
        InputError: timm knows no repository of this name, or the file cannot be had.
    """
    try:
        config = timm.get_pretrained_cfg(name)
    except (RuntimeError, ValueError):  # no such tag
        config = None
    if config is None or not config.hf_hub_id:
        raise InputError(f"timm knows no weights of {name!r} on the hub; put {WEIGHTS} beside model.json")
    try:
        path = Path(hf_hub_download(config.hf_hub_id, WEIGHTS, revision=revision))
    except (OSError, ValueError) as error:
        where = f"{config.hf_hub_id} at {revision or 'its main branch'}"
        raise InputError(f"{where}: cannot fetch {WEIGHTS}: {one_line(error)}") from None
    return path, path.parent.name  # the cache has a folder a commit


def _of_torch(error: Exception) -> str:
    """What an error says, without the frames of C++ that torch puts behind it."""
    return one_line(ValueError(str(error).partition("Exception raised from")[0] or type(error).__name__))


def _check_digest(path: Path, card: Card) -> None:
    try:
        found = sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot read the weights ({error.strerror})") from None
    if found != card.sha256:
        raise InputError(
            f"{path}: expected the weights with SHA-256 {str(card.sha256)[:12]}, found {found[:12]}; if these are "
            f"meant, take `sha256` out of {CARD}, and `python -m pipeline_lib pin` writes it anew"
        )


def _check_classes(card: Card, where: Path) -> None:
    """If they were other classes than those of the hub's weights, timm would leave the head random, without a word."""
    config = timm.get_pretrained_cfg(card.timm)
    if config is not None and config.num_classes != card.num_classes:
        raise InputError(
            f"{where}: `num_classes` is {card.num_classes}, but the hub's weights of {card.timm!r} are for "
            f"{config.num_classes} classes"
        )
