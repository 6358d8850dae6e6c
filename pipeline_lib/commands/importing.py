"""A classifier's folder from a checkpoint as training wrote it. What is assumed on the way is said."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline_lib.artifacts.files import atomic_directory, sha256
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.commands.checkpoint_file import read_state
from pipeline_lib.errors import InputError, one_line, printable, refusing, shown
from pipeline_lib.models.card import CARD, WEIGHTS, Card, Preprocessing, as_preprocessing
from pipeline_lib.models.classifier import build, check_known
from pipeline_lib.models.weights import (
    FLOATS,
    check_finite,
    check_floats,
    check_runs,
    difference,
    likely_prefix,
    load_weights,
    whole_prefixes,
)
from pipeline_lib.params.base import validate
from pipeline_lib.params.names import name as as_name

HUB = "hf-hub:"
WRAPPERS = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class Origin:
    """What is to be imported."""

    file: str  # a path, or hf-hub:OWNER/NAME
    timm: str | None  # a name of timm, or hf-hub:OWNER/NAME; None: that of the file, which is of the hub
    classes: int
    arguments: Mapping[str, Any] = field(default_factory=dict)  # more of timm.create_model
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # `size`, and keys of Preprocessing


def import_classifier(origin: Origin, into: Path) -> Iterator[str]:
    """Write the folder `into`, whole or not at all, with model.safetensors and model.json; yields what was assumed.

    Raises:
        InputError: the file is unreadable or of another network, or the folder is not empty.
    """
    _check_new(into)
    name = origin.timm or origin.file
    architecture, arguments, pretrained_cfg = _architecture(name)
    arguments |= origin.arguments
    preprocessing = _preprocessing(origin, arguments, pretrained_cfg, name)
    channels, size = preprocessing.input_size[:2]
    if channels != 3:
        arguments.setdefault("in_chans", channels)
    if pretrained_cfg.get("fixed_input_size") and size != pretrained_cfg["input_size"][1]:
        arguments.setdefault("img_size", size)
    values = {"timm": architecture, "arguments": arguments, "num_classes": origin.classes}
    card = validate(Card, {**values, "preprocessing": preprocessing.model_dump()}, "", Path("options"))
    needed = build(card, Path("options")).state_dict()
    path = _from_hub(origin.file, [WEIGHTS, "pytorch_model.bin"]) if origin.file.startswith(HUB) else Path(origin.file)
    state, said = read_state(path, needed)
    yield from [f"weights of {path}", *said]
    prefix = _prefix(state, needed, path)
    if prefix:
        others = [key for key in state if not key.startswith(prefix)]
        left = f"; {len(others)} others are not used, first {printable(others[0])}" if others else ""
        yield f"prefix {prefix!r} taken off {len(state) - len(others)} names{left}"
    state = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    check_floats(state, needed, origin.file)
    network = _network(card, state, origin.file)
    yield from _filtered(network, state, architecture)
    if any(tensor.dtype in FLOATS and tensor.dtype != torch.float32 for tensor in state.values()):
        yield "weights of another precision stored as float32"
    check_finite(network, origin.file)
    check_runs(network, preprocessing.input_size, origin.classes, origin.file)
    given = ", ".join(origin.preprocessing) or "nothing"
    yield f"preprocessing {preprocessing.model_dump()}: {given} as given, the rest as timm has it for {name}"
    if arguments:
        yield f"arguments {arguments}"
    with atomic_directory(into) as folder:
        save_file({key: value.clone().contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)
        pinned = card.model_copy(update={"sha256": sha256(folder / WEIGHTS)})
        write_json(folder / CARD, pinned.model_dump(exclude={"test_accuracy"}))
    yield f"{into}: {architecture} of {origin.classes} classes, SHA-256 {str(pinned.sha256)[:12]}"


def _check_new(into: Path) -> None:
    """Stop unless a folder can be made there that `axes.models` can name."""
    if into.is_symlink() or (into.exists() and (not into.is_dir() or any(into.iterdir()))):
        raise InputError(f"{into}: expected a new folder for the classifier, or an empty one; name another with --into")
    try:
        as_name(into.name)
    except ValueError as error:
        raise InputError(f"--into {into}: `axes.models` could not name this folder; {error}") from None


def _architecture(name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Timm's name without tag, arguments, and what timm calls its pretrained_cfg; empty where it has none."""
    if name.startswith(HUB):
        path = _from_hub(name, ["config.json"])
        config = read_json(path)
        pretrained_cfg = config.get("pretrained_cfg", config)
        if not isinstance(config.get("architecture"), str) or not isinstance(pretrained_cfg, dict):
            raise InputError(f"{path}: expected timm's config.json with an `architecture`; {name} is no model of timm")
        arguments = {key: value for key, value in (config.get("model_args") or {}).items() if key != "num_classes"}
        size = pretrained_cfg.get("input_size", [3, 224, 224])
        if not isinstance(size, list) or len(size) != 3:
            raise InputError(f"{path}: expected an `input_size` such as [3, 224, 224], found {shown(size)}")
        channels, *sides = size
        sides = [arguments["img_size"]] * 2 if isinstance(arguments.get("img_size"), int) else sides
        pretrained_cfg["input_size"] = [arguments.get("in_chans", channels), *sides]
        return config["architecture"], arguments, pretrained_cfg
    check_known(name, "--timm")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # no such tag
        raise InputError(f"--timm {name}: {error}") from None
    return name.split(".")[0], {}, config.to_dict() if config else {}


def _preprocessing(
    origin: Origin, arguments: Mapping[str, Any], pretrained_cfg: dict[str, Any], name: str
) -> Preprocessing:
    """Of the options, and of timm where they say nothing."""
    changes = {key: value for key, value in origin.preprocessing.items() if key != "size"}
    sides = pretrained_cfg.get("input_size", [3, 224, 224])[1:]
    if isinstance(arguments.get("img_size"), int):
        sides = [arguments["img_size"]] * 2
    if "size" in origin.preprocessing:
        sides = [origin.preprocessing["size"]] * 2
    channels = len(changes["mean"]) if "mean" in changes else pretrained_cfg.get("input_size", [3])[0]
    changes["input_size"] = [arguments.get("in_chans", channels), *sides]
    if not pretrained_cfg:
        missing = {"size", "mean", "std", "crop_pct", "interpolation"} - origin.preprocessing.keys()
        if missing:
            options = ", ".join(f"--{key.replace('_', '-')}" for key in sorted(missing))
            raise InputError(f"--timm {name}: timm has no preprocessing of this name; give {options}")
        return validate(Preprocessing, {**changes, "crop_mode": "center"}, "preprocessing", Path("options"))
    return as_preprocessing(pretrained_cfg, f"{name} of timm, and the options", **changes)


def _from_hub(name: str, files: list[str]) -> Path:
    """The first of the files that a repository has, from the hub's cache or downloaded."""
    repository, _, revision = name.removeprefix(HUB).partition("@")
    why = ""
    for file in files:
        try:
            return Path(hf_hub_download(repository, file, revision=revision or None))
        except (OSError, ValueError) as error:
            why = why or one_line(error)
    raise InputError(f"{name}: cannot fetch {' or '.join(files)}: {why}")


def _prefix(state: Mapping[str, Tensor], needed: Mapping[str, Tensor], path: Path) -> str:
    """What wrappers put before the names: seen by the names that are needed, or else peeled where most have it."""
    whole = whole_prefixes(state, needed)
    if len(whole) > 1:
        found = ", ".join(repr(prefix) for prefix in whole)
        raise InputError(
            f"{path}: {len(whole)} whole networks, under the prefixes {found}; keep one of them: write a file of the "
            "tensors whose names begin with its prefix"
        )
    if whole:
        return whole[0]
    prefix, matches = likely_prefix(state, needed)
    if matches * 2 > len(needed):
        return prefix
    prefix = ""
    while True:  # names of another layout, which timm's filter renames once nothing stands before them
        longer = [prefix + wrapper for wrapper in WRAPPERS]
        counts = {candidate: sum(key.startswith(candidate) for key in state) for candidate in longer}
        best = max(counts, key=lambda candidate: counts[candidate])
        if counts[best] * 2 <= len(state):
            return prefix
        prefix = best


def _network(card: Card, state: dict[str, Tensor], file: str) -> nn.Module:
    """The network with these weights, renamed as timm renames what it loads.

    The overlay keeps timm from fitting the weights to other classes or channels, which leaves parts of them random.
    """
    assert card.preprocessing is not None
    overlay = {"state_dict": state, "num_classes": card.num_classes, "label_offset": 0, "source": ""}
    overlay["input_size"] = tuple(card.preprocessing.input_size)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in card.arguments.items()}

    def said(error: Exception) -> str:
        bare = build(card, Path(file))
        if state.keys() == bare.state_dict().keys():
            load_weights(bare, state, file)
        names = difference(state.keys(), bare.state_dict().keys())
        return f"{file}: these are not weights of {card.timm}: {names or one_line(error)}"

    with refusing(said):
        network: nn.Module = timm.create_model(
            card.timm, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=card.num_classes, **arguments
        )
    return network.eval().requires_grad_(False)


def _filtered(network: nn.Module, state: Mapping[str, Tensor], architecture: str) -> Iterator[str]:
    """What timm's filter made of the weights."""
    needed = network.state_dict()
    renamed = [name for name in needed if name not in state and not name.endswith("num_batches_tracked")]
    if renamed:
        yield f"timm's filter of {architecture} named {len(renamed)} of {len(needed)} tensors, first {renamed[0]}"
    for name, tensor in needed.items():
        if name in state and state[name].shape != tensor.shape:
            shapes = f"from {tuple(state[name].shape)} to {tuple(tensor.shape)}"
            yield f"timm's filter of {architecture} fitted {name} {shapes}"
