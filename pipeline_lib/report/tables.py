"""What the page shows of the other stages' files, read and checked."""

import math
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.artifacts.tables import read_table
from pipeline_lib.errors import InputError, reading
from pipeline_lib.params.base import validate
from pipeline_lib.report.leaderboard import Artifact, existing

BLOCK_COLUMNS = ["unit", "loss_before", "loss_after", "held_out_before", "held_out_after"]
CURVE_COLUMNS = ["unit", "iteration", "loss", "gradient_norm"]
GAP_COLUMNS = ["unit", "calibration", "labelled"]
SENSITIVITY_COLUMNS = ["layer", "weight_bits", "activation_bits", "divergence"]
FLIPPED_COLUMNS = ["key", "label", "float", "reconstructed"]
PREDICTION_COLUMNS = ["label", "float", "reconstructed"]
RANKING_COLUMNS = ["model", "precision", "source", "agreement", "judge_classes", "chosen"]
SAMPLE_COLUMNS = ["key", "prompt", "scores", "kept", "reason"]
POINTS_OF_A_UNIT = 20  # in its curves


class Weight(Artifact):
    """The quantized weight of a layer."""

    bits: int
    shape: list[int]
    granularity: str


class Activation(Artifact):
    """What a quantizer of activations makes of a tensor."""

    bits: int
    granularity: str
    kind: str = "uniform"


class BitMap(Artifact):
    """quantization.json, as far as the page shows it: bits of every tensor."""

    weights: dict[str, Weight]
    activations: dict[str, Activation]
    simulation_only: bool

    @property
    def size(self) -> int:
        """Number of quantized weights."""
        return sum(math.prod(weight.shape) for weight in self.weights.values())

    @property
    def mean_bits(self) -> float:
        """Bits a quantized weight has on average."""
        return sum(weight.bits * math.prod(weight.shape) for weight in self.weights.values()) / self.size


class Histogram(Artifact):
    """Counts in bins of equal width from lo to hi, and the range that the quantizer can represent."""

    lo: float
    hi: float
    counts: list[int]
    clip_lo: float
    clip_hi: float


class LayerHistograms(Artifact):
    """Histograms of the weight and the input of a layer, as the float network has them."""

    weight: Histogram
    input: Histogram


def read_histograms(path: Path) -> dict[str, LayerHistograms]:
    """histograms.json, by layer.

    Raises:
        InputError: absent, or not as evaluation writes it.
    """
    by_layer = read_json(existing(path))
    return {layer: validate(LayerHistograms, histograms, layer, path) for layer, histograms in by_layer.items()}


def read_pixels(path: Path) -> np.ndarray:
    """Images uint8 (n, h, w, 3), memory-mapped.

    Raises:
        InputError: absent, or no such images.
    """
    with reading(path, "a numpy file of images", "`dvc checkout` restores it, `dvc repro` makes it anew"):
        images: np.ndarray = np.load(path, mmap_mode="r")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        found = f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: expected uint8 (n, h, w, 3), found {found}; `dvc checkout` restores it")
    return images


def read_curves(paths: dict[str, Path]) -> pd.DataFrame:
    """Some cells' curves.csv by source: columns source, unit, position, loss, gradient_norm.

    Position counts units, so that units of different length are equally wide: 1.5 is the middle of the second. Each
    unit has at most POINTS_OF_A_UNIT rows, each the mean of a stretch of iterations.
    """
    thinned = []
    for source, path in paths.items():
        table = read_table(path, CURVE_COLUMNS, ("unit",))
        for number, (unit, curve) in enumerate(table.groupby("unit", sort=False)):
            rows = np.arange(len(curve))
            stretch = rows * min(POINTS_OF_A_UNIT, len(rows)) // len(rows)
            means = curve[["loss", "gradient_norm"]].groupby(stretch).mean()
            last = curve["iteration"].groupby(stretch).max()
            means.insert(0, "position", number + last / curve["iteration"].max())
            means.insert(0, "unit", unit)
            means.insert(0, "source", source)
            thinned.append(means)
    empty = pd.DataFrame(columns=["source", "unit", "position", "loss", "gradient_norm"])
    return pd.concat(thinned or [empty], ignore_index=True)  # none of a method without iterations
