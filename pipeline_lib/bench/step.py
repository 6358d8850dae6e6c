"""A whole reconstruction step, with the compiled operators and with the reference."""

import copy
import time
from pathlib import Path

import pandas as pd
import timm
import torch
from torch import nn

from pipeline_lib.fakequant import backend, reference_only
from pipeline_lib.models.device import place
from pipeline_lib.params.everything import read_everything
from pipeline_lib.progress import ProgressBar
from pipeline_lib.quantization.attach import attach, fold, make_scheme
from pipeline_lib.quantization.capture import run_unit, unit_inputs
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.reconstruction import reconstruct_unit
from pipeline_lib.quantization.step import UnitData

UNIT = "layer1.0"  # of a ResNet-18 at 64x64 pixels: two 3x3 convolutions of 64 channels at 16x16
IMAGES, BATCH = 128, 64
FEW, MANY = 10, 60  # iterations; the time of one is that of the difference, free of what comes before and after
REPEATS = 3


def compare_steps(device: torch.device, preset: Path) -> pd.DataFrame:
    """Milliseconds of one iteration of W2A4 reconstruction, batch 32; the best of REPEATS, taken in turns."""
    params = read_everything(preset)
    torch.manual_seed(0)
    network = timm.create_model("resnet18", layers=(1, 1, 1, 1)).eval()
    blank = fold(network, (3, 64, 64))
    quantized = copy.deepcopy(network)
    methods = {"cnn": params.methods[params.reconstruct.cnn]}
    scheme = make_scheme(quantized, blank, params.precisions["w2a4"], params.reconstruct.softmax, methods)
    attach(quantized, blank, scheme)
    network, quantized = place(network, device), place(quantized, device)
    batches = list(torch.randn(IMAGES, 3, 64, 64, device=device).split(BATCH))
    search_ranges(quantized, batches, {}, methods["cnn"].ranges)
    inputs = unit_inputs(quantized, UNIT, batches), unit_inputs(network, UNIT, batches)
    data = UnitData(*inputs, run_unit(network.get_submodule(UNIT), inputs[1], BATCH))
    unit = quantized.get_submodule(UNIT)

    def seconds(iterations: int) -> float:
        again: nn.Module = copy.deepcopy(unit)
        settings = params.reconstruct.model_copy(update={"held_out": 32})
        method = methods["cnn"].model_copy(update={"iterations": iterations})
        synchronise(device)
        began = time.perf_counter()
        reconstruct_unit(UNIT, again, data, settings, method, head=False)
        synchronise(device)
        return time.perf_counter() - began

    def step() -> float:
        return 1e3 * (seconds(MANY) - seconds(FEW)) / (MANY - FEW)

    compiled, reference = [], []
    with ProgressBar("bench reconstruction step", REPEATS) as bar:
        for _ in range(REPEATS):
            compiled.append(step())
            with reference_only():
                reference.append(step())
            bar.advance(1, f"{min(compiled):.1f} ms, reference {min(reference):.1f} ms")
    rows = [("reference", min(reference)), (f"{backend(device).kind} operators", min(compiled))]
    return pd.DataFrame([{"step": name, "ms": ms, "times_reference": rows[0][1] / ms} for name, ms in rows])


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
