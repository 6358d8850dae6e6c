"""model.json, which describes the classifier of a folder. Without torch, unless timm is asked for the preprocessing."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import Section, validate


class Card(Section):
    """model.json: how to build the network, where its weights are, what images it expects."""

    timm: str  # name in timm, with the tag of its weights if they come from the hub
    arguments: dict[str, Any] = Field(default_factory=dict)  # more arguments of timm.create_model
    num_classes: int
    preprocessing: dict[str, Any] | None = None  # timm data config; null: that of the hub's weights
    test_accuracy: float | None = None  # top-1, percent
    sha256: str | None = None  # of model.safetensors; null: weights come from the hub


def read_card(folder: Path) -> Card:
    """The model.json of a classifier's folder.

    Raises:
        InputError: it is absent, not JSON, or lacks something.
    """
    path = folder / "model.json"
    try:
        return validate(Card, json.loads(path.read_text()), "", path)
    except FileNotFoundError:
        raise InputError(f"{path}: no classifier here; `task.classifiers` in params.yaml names the folder") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON ({error.msg})") from None


def resolve_data_config(folder: Path) -> dict[str, Any]:
    """The timm data config of a classifier's folder: input_size, interpolation, mean, std, crop_pct, crop_mode."""
    card = read_card(folder)
    if card.preprocessing is not None:
        return card.preprocessing
    import timm  # imports torch

    return dict(timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(card.timm).to_dict()))
