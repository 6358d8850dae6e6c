"""Classifiers of timm, from a folder that ships or from the hub."""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

from pipeline_lib.errors import InputError
from pipeline_lib.models.card import Card, read_card, resolve_data_config
from pipeline_lib.reads import checked


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with timm's data config: input_size, interpolation, mean, std, crop."""

    network: torch.nn.Module
    data_config: dict[str, Any]


def build(card: Card, *, pretrained: bool = False) -> torch.nn.Module:
    """The architecture, with random weights unless `pretrained`.

    Raises:
        InputError: timm does not know the model or its arguments.
    """
    base = card.timm.split(".")[0]
    if not timm.is_model(base):
        close = difflib.get_close_matches(base, timm.list_models(), 3)
        raise InputError(f"timm has no model {base!r}; close names: {', '.join(close) or 'none'}")
    # JSON has lists where timm wants tuples.
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in card.arguments.items()}
    try:
        network = timm.create_model(card.timm, pretrained=pretrained, num_classes=card.num_classes, **arguments)
    except (TypeError, RuntimeError, OSError) as error:
        raise InputError(f"timm cannot build {card.timm!r}: {' '.join(str(error).split())}") from None
    frozen: torch.nn.Module = network.eval().requires_grad_(False)
    return frozen


def load_classifier(folder: Path) -> Classifier:
    """The network of a classifier's folder, in evaluation mode, on the CPU.

    Raises:
        InputError: weights absent, altered, or of another shape than the network.
    """
    card, weights = read_card(folder), folder / "model.safetensors"
    if card.sha256 is None:
        network = build(card, pretrained=True)
    else:
        network = build(card)
        _load_weights(network, weights, card.sha256)
    return Classifier(network, resolve_data_config(folder))


def _load_weights(network: torch.nn.Module, path: Path, expected: str) -> None:
    if not path.exists():
        raise InputError(f"{path}: weights not found; `git checkout -- {path}` restores what ships")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(f"{path}: expected the weights with SHA-256 {expected[:12]}, found {found[:12]}")
    state, needed = load_file(checked(path)), network.state_dict()
    for name in sorted(state.keys() | needed.keys()):
        has = tuple(state[name].shape) if name in state else "nothing"
        wants = tuple(needed[name].shape) if name in needed else "nothing"
        if has != wants:
            raise InputError(f"{path}: {name}: the network of model.json has {wants}, the checkpoint {has}")
    network.load_state_dict(state)
