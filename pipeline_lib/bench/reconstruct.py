"""Reconstruction steps with our operators, with the reference, and with chains of PyTorch's own operators."""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
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
from pipeline_lib.params.everything import read_preset
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization import layers, quantizers, step
from pipeline_lib.quantization.caches import Caches, UnitData
from pipeline_lib.quantization.capture import unit_inputs, unit_outputs
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.losses import reconstruction_error
from pipeline_lib.quantization.prepare import prepare
from pipeline_lib.quantization.reconstruction import reconstruct_unit
from pipeline_lib.quantization.scheme import make_scheme

TRAINED, HELD_OUT = 64, 32  # images
FEW, MANY = 2, 12  # iterations; the time of one is that of the difference, free of what comes before and after
REPEATS = 2
PUBLISHED = 20_000  # iterations a unit


def compare_units(
    device: torch.device, preset: str, model: str, image_size: int, units: Sequence[str] = ()
) -> pd.DataFrame:
    """A row a unit of a timm network with random weights: milliseconds of an iteration at W2A4, the preset's method.

    The loss is the plain squared error, whatever the method's `error`: it is computed in PyTorch in every variant.
    The best of REPEATS, taken in turns.

    Args:
        device: where it runs.
        preset: name of the preset.
        model: timm's name.
        image_size: pixels.
        units: names; none: all.

    Raises:
        InputError: timm has no such model.
    """
    if not timm.is_model(model):
        raise InputError(f"--model: timm has no {model!r}; `timm.list_models()` names them")
    params = read_preset(preset)
    settings = params.reconstruct.model_copy(update={"held_out": HELD_OUT})
    torch.manual_seed(0)
    network = timm.create_model(model, **({"img_size": image_size} if "vit" in model or "swin" in model else {})).eval()
    method = family_of(network).choose_method(params.reconstruct, params.methods)
    chosen = partial(
        make_scheme, precision=params.precisions["w2a4"], softmax=params.reconstruct.softmax, method=method
    )
    prepared = prepare(network, (3, image_size, image_size), chosen).to(device)
    quantized, every = prepared.quantized, list(prepared.anatomy.units)
    images = TRAINED + HELD_OUT
    batches = list(torch.randn(images, 3, image_size, image_size, device=device).split(HELD_OUT))
    # Quick, and the speed of a step is the same.
    search_ranges(quantized, batches[:1], prepared.anatomy.norm_readers, "minmax")

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
            inputs = (caches.store(images, unit_inputs(n, name, batches)) for n in (quantized, prepared.reference))
            quantized_input, float_input = inputs
            outputs = unit_outputs(prepared.reference.get_submodule(name), float_input.batches(HELD_OUT))
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
    with (
        patch.multiple(quantizers, **chains),
        patch.multiple(layers, fake_quant=eager.fake_quant, soft_round=soft_round),
        patch.object(step, "mix", mix),
    ):
        yield


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
