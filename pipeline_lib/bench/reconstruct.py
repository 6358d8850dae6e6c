"""Reconstruction steps with our operators, with the reference, and with chains of PyTorch's own operators."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
SHORT_RUN, LONG_RUN = 2, 12  # iterations; the difference of their times has no share of what comes before and after
REPEATS = 2  # measurements, of which the quickest counts
PUBLISHED = 20_000  # iterations of each unit in publications


def compare_units(
    device: torch.device, preset: str, model: str, image_size: int, units: Sequence[str] = ()
) -> pd.DataFrame:
    """A row for each unit of a timm network with random weights: milliseconds of an iteration at W2A4, by variant.

    The method is the preset's, but the loss is always the plain squared error: every variant computes it in PyTorch.

    Args:
        device: where it runs.
        preset: name of the preset.
        model: timm's name.
        image_size: pixels.
        units: names of those to time; none: all.

    Raises:
        InputError: timm has no such model.
    """
    if not timm.is_model(model):
        raise InputError(f"--model: timm has no {model!r}; `timm.list_models()` names them")
    params = read_preset(preset)
    settings = params.reconstruct.model_copy(update={"held_out": HELD_OUT})
    torch.manual_seed(0)
    arguments = {"img_size": image_size} if "vit" in model or "swin" in model else {}
    network = timm.create_model(model, **arguments).eval()
    method = family_of(network).choose_method(params.reconstruct, params.methods)
    scheme = partial(
        make_scheme, precision=params.precisions["w2a4"], softmax=params.reconstruct.softmax, method=method
    )
    prepared = prepare(network, (3, image_size, image_size), scheme).to(device)
    quantized = prepared.quantized
    names = list(units or prepared.anatomy.units)
    images = TRAINED + HELD_OUT
    batches = list(torch.randn(images, 3, image_size, image_size, device=device).split(HELD_OUT))
    # minmax is quick, and ranges do not change the speed of a step
    search_ranges(quantized, batches[:1], prepared.anatomy.norm_readers, "minmax")

    def seconds(name: str, data: UnitData, iterations: int) -> float:
        """Time that the reconstruction of a copy of the unit takes."""
        unit: nn.Module = copy.deepcopy(quantized.get_submodule(name))
        synchronise(device)
        began = time.perf_counter()
        shortened = method.model_copy(update={"iterations": iterations})
        reconstruct_unit(name, unit, data, reconstruction_error, settings, shortened, lambda _: None)
        synchronise(device)
        return time.perf_counter() - began

    rows = []
    with ProgressBar("bench reconstruct", len(names)) as bar:
        for name in names:
            caches = Caches(device, math.inf, Path())
            quantized_input = caches.store(images, unit_inputs(quantized, name, batches))
            float_input = caches.store(images, unit_inputs(prepared.reference, name, batches))
            outputs = unit_outputs(prepared.reference.get_submodule(name), float_input.batches(HELD_OUT))
            data = UnitData(quantized_input, float_input, caches.store(images, outputs))
            best: dict[str, float] = {}
            for _ in range(REPEATS):
                for variant, context in VARIANTS.items():
                    with context():
                        difference = seconds(name, data, LONG_RUN) - seconds(name, data, SHORT_RUN)
                    milliseconds = 1e3 * difference / (LONG_RUN - SHORT_RUN)
                    best[variant] = min(milliseconds, best.get(variant, milliseconds))
            rows.append({"unit": name, **best})
            bar.advance(1, f"{name}: {best['ours']:.1f} ms, eager {best['eager']:.1f} ms")
    table = pd.DataFrame(rows)
    table["times_eager"] = table["eager"] / table["ours"]
    table["times_reference"] = table["reference"] / table["ours"]
    table["iterations_per_second"] = 1e3 / table["ours"]
    table[f"hours_of_{PUBLISHED}"] = table["ours"] * PUBLISHED / 3.6e6
    return table


@contextmanager
def eager_chains() -> Iterator[None]:
    """Run quantizers and steps on chains of PyTorch's own operators.

    The regulariser of soft rounding is not computed: published code would take longer yet.
    """

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


VARIANTS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "eager": eager_chains,
    "reference": reference_only,
    "ours": nullcontext,
}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
