"""Quantized checkpoints: safetensors of packed integers, steps and zero points, and quantization.json beside them."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.models.card import Card, Preprocessing
from pipeline_lib.models.classifier import Classifier, build
from pipeline_lib.models.weights import read_tensors
from pipeline_lib.params.base import validate
from pipeline_lib.quantization.layers import quant_layers
from pipeline_lib.quantization.packing import pack, unpack
from pipeline_lib.quantization.prepare import Prepared, prepare
from pipeline_lib.quantization.quantizers import quantizers
from pipeline_lib.quantization.scheme import Scheme

FORMAT = 2
MODEL, NEAREST, DESCRIPTION = "model.safetensors", "nearest.safetensors", "quantization.json"
CLASSES = "classes.csv"  # index,name,definition, for who loads the checkpoint; no byte of the others depends on it


def checkpoint_description(
    network: nn.Module, card: Card, data_config: dict[str, Any], scheme: Scheme
) -> dict[str, Any]:
    """The content of quantization.json: how to build the network again, and the bit map of every tensor."""
    log_softmax = scheme.softmax == "log-sqrt2" and any("softmax" in name for name in quantizers(network))
    return {
        "format": FORMAT,
        "model": card.model_dump(),
        "data_config": data_config,
        "scheme": scheme.to_json(),
        "simulation_only": log_softmax,  # log-sqrt2 has no form in an integer runtime
        "weights": {
            name: {
                "bits": layer.weight_bits,
                "shape": list(layer.weight.shape),
                "granularity": f"per {scheme.granularity}",
                "grid": scheme.weights,
            }
            for name, layer in quant_layers(network).items()
        },
        "activations": {name: quantizer.description() for name, quantizer in quantizers(network).items()},
    }


def save_state(path: Path, module: nn.Module) -> None:
    """Write a network, or a unit to go on from after a kill; its layers are frozen."""
    state = _skeleton(module)
    for name, layer in quant_layers(module).items():
        state[_join(name, "integers")] = pack(layer.integers.cpu(), layer.weight_bits)
    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}, path)


def restore(path: Path, module: nn.Module) -> None:
    """Load what `save_state` wrote into a module of the same structure, whose layers are frozen then.

    Every tensor stays on the module's device and in its memory format, so that a run that goes on computes as one that
    was never interrupted.

    Raises:
        InputError: the file is damaged, or holds other tensors than the module needs.
    """
    state = read_tensors(path, "`dvc checkout` restores it")
    needed = _skeleton(module)
    packed_sizes = {
        _join(name, "integers"): (math.ceil(layer.weight.numel() * layer.weight_bits / 8),)
        for name, layer in quant_layers(module).items()
    }
    for name in sorted(state.keys() | needed.keys()):
        if name not in state or name not in needed:
            raise InputError(f"{path}: tensor {name} is {'unexpected' if name in state else 'missing'}")
        expected = needed[name].dtype, packed_sizes.get(name, tuple(needed[name].shape))
        found = state[name].dtype, tuple(state[name].shape)
        if found != expected:
            raise InputError(f"{path}: tensor {name}: expected {expected}, found {found}; `dvc checkout` restores it")
    for name, layer in quant_layers(module).items():
        packed = state.pop(_join(name, "integers"))
        integers = unpack(packed, layer.weight_bits, tuple(layer.weight.shape))
        layer.step.copy_(state[_join(name, "step")])
        layer.zero_point.copy_(state[_join(name, "zero_point")])
        layer.freeze(integers.to(layer.step.device))
    module.load_state_dict(state, strict=False)
    for quantizer in quantizers(module).values():
        quantizer.freeze()


def load_quantized(folder: Path, weights: str = MODEL) -> Classifier:
    """Build the network of a quantized folder again. It gives the logits it gave when it was written, bit for bit.

    Raises:
        InputError: the folder is not a quantized model of this format.
    """
    description, path = read_description(folder), folder / DESCRIPTION
    try:
        card = validate(Card, description["model"], "model", path)
        data_config = validate(Preprocessing, description["data_config"], "data_config", path).model_dump()
        prepared = prepare_as_described(build(card, path), description)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not as it was written ({error!r}); `dvc checkout` restores it") from None
    restore(folder / weights, prepared.quantized)
    return Classifier(prepared.quantized, data_config)


def save_classes(path: Path, classes: Sequence[tuple[str, str]]) -> None:
    """Write names and definitions of the classes, in the order of the network's outputs."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "name", "definition"])
        writer.writerows((index, *entry) for index, entry in enumerate(classes))


def read_classes(folder: Path) -> list[str]:
    """The names of a checkpoint's classes, in the order of the network's outputs.

    Raises:
        InputError: the file is absent, or lists other classes than the network has.
    """
    path, expected = folder / CLASSES, read_description(folder)["model"]["num_classes"]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            names = [row["name"] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: no class list of a checkpoint ({error!r}); `dvc repro` writes one") from None
    if len(names) != expected:
        raise InputError(f"{path}: expected {expected} classes, found {len(names)}; `dvc checkout` restores it")
    return names


def read_description(folder: Path) -> dict[str, Any]:
    """The quantization.json of a quantized folder.

    Raises:
        InputError: absent, or of another format.
    """
    description = read_json(folder / DESCRIPTION)
    if description.get("format") != FORMAT:
        raise InputError(f"{folder}: expected format {FORMAT}, found {description.get('format')}; run `dvc repro`")
    return description


def prepare_as_described(network: nn.Module, description: dict[str, Any]) -> Prepared:
    """The float network with the quantizers that a quantization.json describes; tensors are still to be restored."""
    input_size = description["data_config"]["input_size"]
    prepared = prepare(network, input_size, Scheme.from_json(description["scheme"]))
    for name, quantizer in quantizers(prepared.quantized).items():
        quantizer.restore(description["activations"][name])
    return prepared


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _skeleton(module: nn.Module) -> dict[str, Tensor]:
    """State of a module with `integers` in place of the weights of quantized layers, not packed."""
    state = dict(module.state_dict())
    for name, layer in quant_layers(module).items():
        del state[_join(name, "layer.weight")]
        state[_join(name, "integers")] = layer.integers
    return state
