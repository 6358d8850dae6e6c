"""Quantized checkpoints: safetensors of packed integers, steps and zero points, and quantization.json beside them."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.models.card import Card
from pipeline_lib.models.classifier import Classifier, build
from pipeline_lib.params.base import validate
from pipeline_lib.quantization.attach import Scheme, attach, fold, quant_layers, quantizers
from pipeline_lib.quantization.packing import pack, unpack
from pipeline_lib.quantization.quantizers import QuantLayer, UniformQuantizer

FORMAT = 2


def describe(network: nn.Module, card: Card, data_config: dict[str, Any], scheme: Scheme) -> dict[str, Any]:
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
        "activations": {
            name: {"bits": q.bits, "granularity": "per tensor"}
            | ({"qmin": q.qmin, "qmax": q.qmax} if isinstance(q, UniformQuantizer) else {"kind": "log-sqrt2"})
            for name, q in quantizers(network).items()
        },
    }


def save_network(path: Path, network: nn.Module) -> None:
    """Write all of a network whose layers are frozen."""
    save_file(_state(network), path)


def save_unit(path: Path, unit: nn.Module) -> None:
    """Write one frozen unit, to go on from after a kill."""
    save_file(_state(unit), path)


def restore(path: Path, module: nn.Module) -> None:
    """Load what `save_network` or `save_unit` wrote into a module of the same structure; its layers are then frozen.

    Raises:
        InputError: the file holds other tensors than the module needs.
    """
    state = load_file(path)
    needed = _skeleton(module)
    for name in sorted(state.keys() | needed.keys()):
        if name not in state or name not in needed:
            raise InputError(f"{path}: tensor {name} is {'unexpected' if name in state else 'missing'}")
    for name, layer in _layers(module).items():
        packed = state.pop(_join(name, "integers"))
        integers = unpack(packed, layer.weight_bits, tuple(layer.weight.shape))
        layer.step, layer.zero_point = state[_join(name, "step")], state[_join(name, "zero_point")]
        layer.freeze(integers)
    module.load_state_dict(state, strict=False)
    for quantizer in quantizers(module).values():
        quantizer.enabled = True
        if isinstance(quantizer, UniformQuantizer):
            quantizer.learned = True


def load_quantized(folder: Path, weights: str = "model.safetensors") -> Classifier:
    """Build the network of a quantized folder again. It gives the logits it gave when it was written, bit for bit.

    Raises:
        InputError: the folder is not a quantized model of this format.
    """
    description = read_json(folder / "quantization.json")
    if description.get("format") != FORMAT:
        raise InputError(f"{folder}: expected format {FORMAT}, found {description.get('format')}; run `dvc repro`")
    card = validate(Card, description["model"], "model", folder / "quantization.json")
    config = description["data_config"]
    network = build(card)
    batch = fold(network, tuple(config["input_size"]))
    attach(network, batch, Scheme.from_json(description["scheme"]))
    for name, quantizer in quantizers(network).items():
        if isinstance(quantizer, UniformQuantizer):
            grid = description["activations"][name]
            quantizer.qmin, quantizer.qmax = grid["qmin"], grid["qmax"]
    restore(folder / weights, network)
    return Classifier(network, config)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _layers(module: nn.Module) -> dict[str, QuantLayer]:
    return {name: m for name, m in module.named_modules() if isinstance(m, QuantLayer)}


def _skeleton(module: nn.Module) -> dict[str, Tensor]:
    """State of a module with `integers` in place of the weights of quantized layers, not packed."""
    state = dict(module.state_dict())
    for name, layer in _layers(module).items():
        del state[_join(name, "layer.weight")]
        state[_join(name, "integers")] = layer.integers
    return state


def _state(module: nn.Module) -> dict[str, Tensor]:
    state = _skeleton(module)
    for name, layer in _layers(module).items():
        state[_join(name, "integers")] = pack(layer.integers.cpu(), layer.weight_bits)
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
