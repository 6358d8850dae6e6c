"""Classifiers of timm, from a folder that ships or from the hub."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file

from pipeline_lib.errors import InputError
from pipeline_lib.models.card import WEIGHTS, Card, read_card, resolve_data_config
from pipeline_lib.reads import checked


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with timm's data config: input_size, interpolation, mean, std, crop."""

    network: torch.nn.Module
    data_config: dict[str, Any]


def build(card: Card, *, weights: Path | None = None) -> torch.nn.Module:
    """The architecture, with random weights, or with those of a file as timm's hub has them.

    Raises:
        InputError: timm does not know the model or its arguments, or the weights are of another.
    """
    base = card.timm.split(".")[0]
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), 3)
        raise InputError(f"timm has no model {base!r}; close names: {', '.join(close) or 'none'}")
    # JSON has lists where timm wants tuples.
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in card.arguments.items()}
    if weights is not None:  # `custom_load` is for other files than safetensors
        overlay = {"file": str(weights), "custom_load": False}
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        network = timm.create_model(card.timm, num_classes=card.num_classes, **arguments)
    except (TypeError, RuntimeError, OSError) as error:
        raise InputError(f"timm cannot build {card.timm!r}: {' '.join(str(error).split())}") from None
    frozen: torch.nn.Module = network.eval().requires_grad_(False)
    return frozen


def load_classifier(folder: Path) -> Classifier:
    """The network of a classifier's folder, in evaluation mode, on the CPU.

    Raises:
        InputError: the weights are absent, altered, or of another shape than the network's.
    """
    card, beside = read_card(folder), folder / WEIGHTS
    if beside.exists():
        _check_digest(beside, card)
        network = build(card)
        _load_weights(network, beside)
    elif card.revision is not None:
        fetched, _ = fetch(card.timm, card.revision)
        _check_digest(fetched, card)
        network = build(card, weights=fetched)
    else:
        raise InputError(
            f"{beside}: weights not found; `git checkout -- {beside}` restores what ships, and "
            f"`python -m pipeline_lib pin {folder}` pins what the hub has"
        )
    return Classifier(network, resolve_data_config(folder))


def fetch(name: str, revision: str | None) -> tuple[Path, str]:
    """The weights of a timm name in the hub's cache, downloaded unless they are there, and their commit.

    `revision` is a commit; none: that of the repository's main branch.

    Raises:
        InputError: timm knows no repository of this name, or the file cannot be had.
    """
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # no such tag
        config = None
    if config is None or not config.hf_hub_id:
        raise InputError(f"timm knows no weights of {name!r} on the hub; put {WEIGHTS} beside model.json")
    try:
        path = Path(hf_hub_download(config.hf_hub_id, WEIGHTS, revision=revision))
    except (OSError, ValueError) as error:
        where = f"{config.hf_hub_id} at {revision or 'its main branch'}"
        raise InputError(f"{where}: cannot fetch {WEIGHTS}: {' '.join(str(error).split())}") from None
    return path, path.parent.name  # the cache has a folder a commit


def _check_digest(path: Path, card: Card) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != card.sha256:
        raise InputError(f"{path}: expected the weights with SHA-256 {str(card.sha256)[:12]}, found {found[:12]}")


def _load_weights(network: torch.nn.Module, path: Path) -> None:
    state, needed = load_file(checked(path)), network.state_dict()
    for name in sorted(state.keys() | needed.keys()):
        in_checkpoint = tuple(state[name].shape) if name in state else "nothing"
        in_network = tuple(needed[name].shape) if name in needed else "nothing"
        if in_checkpoint != in_network:
            raise InputError(
                f"{path}: {name}: the network of model.json has {in_network}, the checkpoint {in_checkpoint}"
            )
    network.load_state_dict(state)
