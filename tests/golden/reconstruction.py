"""From a calibration set to a checkpoint: batches and packing, which are exact, and losses, which are nearly so."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import BaseModel

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.models.card import resolve_data_config
from pipeline_lib.params.everything import read_preset
from pipeline_lib.params.reconstruct import Method, Override, Precision, Reconstruct
from pipeline_lib.quantization.caches import choose_batches
from pipeline_lib.quantization.packing import pack
from pipeline_lib.quantization.quantize import BLOCKS, Quantization, quantize
from tests.golden.digests import digest

ROOT = Path(__file__).resolve().parents[2]
# By network, units whose losses are recorded. What is learned behind them in a ViT is another on other processors.
UNITS: dict[str, str] = {"resnet": r".*", "vit": r"patch_embed\.proj|blocks\.[01]"}


def compute() -> dict[str, Any]:
    """What is exact, by name; each default by its own, for a new one changes no identity."""
    levels = torch.arange(37 * 3).view(37, 3)
    packed = {str(bits): pack((levels % 2**bits).byte(), bits).tolist() for bits in range(2, 9)}
    sections: tuple[type[BaseModel], ...] = (Method, Override, Precision, Reconstruct)
    defaults = {
        f"default of {section.__name__} {name}": field.get_default(call_default_factory=True)
        for section in sections
        for name, field in section.model_fields.items()
        if not field.is_required()
    }
    return {
        "packed integers": digest(packed),
        "images of each iteration": digest(choose_batches(20, 8, 50, seed=3).tolist()),
        "seeds": digest([seed_of("reconstruct", seed, unit) for seed in (0, 1) for unit in ("conv1+act1", "network")]),
        **defaults,
    }


def losses() -> dict[str, list[float]]:
    """Of units of the shipped networks, before and after a few iterations of reconstruction on waves."""
    preset = read_preset("default")
    lengths = {"iterations": 6, "tune_iterations": 4}
    methods = {name: method.model_copy(update=lengths) for name, method in preset.methods.items()}
    params = preset.reconstruct.model_copy(update={"held_out": 8, "range_images": 16, "batch_size": 8})
    how = Quantization(preset.precisions["w2a4"], params, methods, torch.device("cpu"), 1.0)
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        images, threads = Path("images.npy"), torch.get_num_threads()
        torch.set_num_threads(1)
        for model, units in UNITS.items():
            classifier, out = ROOT / "data/fashion/classifiers/scenes" / model, Path(f"golden-{model}")
            np.save(images, _images(resolve_data_config(classifier)["input_size"][1]))
            quantize(images, classifier, how, out)
            table = pd.read_csv(out / BLOCKS)
            for row in table[table["unit"].str.fullmatch(units)].itertuples():
                found[f"{model} {row.unit}"] = [float(f"{value:.6g}") for value in (row.loss_before, row.loss_after)]
        torch.set_num_threads(threads)
    return found


def _images(size: int) -> np.ndarray:
    """uint8 (24, size, size, 3): waves of several lengths and directions."""
    y, x, channel = np.meshgrid(np.arange(size), np.arange(size), np.arange(3), indexing="ij")
    waves = [np.sin((x * (i % 5) + y * (i % 7) + 11 * channel * (i % 3)) / (3 + i)) for i in range(24)]
    return (127.5 * (1 + np.stack(waves))).astype(np.uint8)
