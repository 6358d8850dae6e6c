"""Reconstruction steps with our operators, with the reference, and with chains of PyTorch's own operators."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import timm
import torch
from torch import Tensor, nn

from pipeline_lib.bench import eager
from pipeline_lib.errors import InputError
from pipeline_lib.fakequant import reference_only
from pipeline_lib.models.device import place
from pipeline_lib.models.units import reconstruction_units
from pipeline_lib.params.everything import read_everything
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization import quantizers, step
from pipeline_lib.quantization.attach import attach, fold, make_scheme, method_for
from pipeline_lib.quantization.caches import Caches
from pipeline_lib.quantization.capture import unit_inputs, unit_outputs
from pipeline_lib.quantization.dataflow import layers, observe
from pipeline_lib.quantization.initialise import layer_norm_readers, search_ranges
from pipeline_lib.quantization.reconstruction import reconstruct_unit
from pipeline_lib.quantization.step import UnitData, reconstruction_error

TRAINED, HELD_OUT = 64, 32  # images
FEW, MANY = 2, 12  # iterations; the time of one is that of the difference, free of what comes before and after
REPEATS = 2
PUBLISHED = 20_000  # iterations a unit


def compare_units(
    device: torch.device, preset: Path, model: str, image_size: int, units: Sequence[str] = ()
) -> pd.DataFrame:
    """A row a unit of a timm network with random weights: milliseconds of an iteration at W2A4, the preset's method.

    The loss is the plain squared error, whatever the method's `error`: it is computed in PyTorch in every variant.
    The best of REPEATS, taken in turns. All units unless some are named.

    Raises:
        InputError: timm has no such model.
    """
    if not timm.is_model(model):
        raise InputError(f"--model: timm has no {model!r}; `timm.list_models()` names them")
    params = read_everything(preset)
    settings = params.reconstruct.model_copy(update={"held_out": HELD_OUT})
    methods = {family: params.methods[getattr(params.reconstruct, family)] for family in ("cnn", "vit")}
    torch.manual_seed(0)
    network = timm.create_model(model, **({"img_size": image_size} if "vit" in model or "swin" in model else {})).eval()
    blank = fold(network, (3, image_size, image_size))
    every = list(reconstruction_units(network, blank, layers(observe(network, blank))))
    quantized = copy.deepcopy(network)
    scheme = make_scheme(quantized, blank, params.precisions["w2a4"], params.reconstruct.softmax, methods)
    readers = layer_norm_readers(observe(quantized, blank))
    attach(quantized, blank, scheme)
    network, quantized = place(network, device), place(quantized, device)
    names = list(scheme.bits)
    method = method_for(names, methods)
    images = TRAINED + HELD_OUT
    batches = list(torch.randn(images, 3, image_size, image_size, device=device).split(HELD_OUT))
    search_ranges(quantized, batches[:1], readers, "minmax")  # quick, and the speed of a step is the same

    def seconds(name: str, data: UnitData, iterations: int) -> float:
        """Of the reconstruction of a copy of the unit."""
        unit: nn.Module = copy.deepcopy(quantized.get_submodule(name))
        synchronise(device)
        began = time.perf_counter()
        shortened = method.model_copy(update={"iterations": iterations})
        reconstruct_unit(name, unit, data, reconstruction_error, settings, shortened, lambda _: None)
        synchronise(device)
        return time.perf_counter() - began

    rows = []
    with ProgressBar("bench reconstruct", len(units or every)) as bar:
        for name in units or every:
            caches = Caches(device, math.inf, Path())
            inputs = (caches.store(images, unit_inputs(n, name, batches)) for n in (quantized, network))
            quantized_input, float_input = inputs
            outputs = unit_outputs(network.get_submodule(name), float_input.batches(HELD_OUT))
            data = UnitData(quantized_input, float_input, caches.store(images, outputs))
            best: dict[str, float] = {}
            for _ in range(REPEATS):
                for variant, context in (("eager", eager_chains), ("reference", reference_only), ("ours", nullcontext)):
                    with context():
                        took = 1e3 * (seconds(name, data, MANY) - seconds(name, data, FEW)) / (MANY - FEW)
                    best[variant] = min(took, best.get(variant, took))
            rows.append({"unit": name, **best})
            bar.advance(1, f"{name}: {best['ours']:.1f} ms, eager {best['eager']:.1f} ms")
    table = pd.DataFrame(rows)
    table["times_eager"], table["times_reference"] = table["eager"] / table["ours"], table["reference"] / table["ours"]
    table["iterations_per_second"] = 1e3 / table["ours"]
    table[f"hours_of_{PUBLISHED}"] = table["ours"] * PUBLISHED / 3.6e6
    return table


@contextmanager
def eager_chains() -> Iterator[None]:
    """Run quantizers and steps on chains of PyTorch's own operators, without the regulariser, which comes on top."""

    def soft_round(*arguments: Any) -> Tensor:
        return eager.soft_round(*arguments)[0]

    def mix(x: Tensor, y: Tensor, p: float, seed: Tensor) -> Tensor:  # noqa: ARG001 the operator's
        return torch.where(torch.rand_like(x) < p, x, y)

    chains = {name: getattr(eager, name) for name in ("fake_quant", "fake_quant_drop", "log_sqrt2_quant")}
    with patch.multiple(quantizers, soft_round=soft_round, **chains), patch.object(step, "mix", mix):
        yield


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
