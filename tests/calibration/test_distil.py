"""Distilled images: what they are optimised for, and that they are the same each time."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline_lib.calibration.distil import distil, statistics_distance
from pipeline_lib.calibration.filters import score
from pipeline_lib.calibration.layers import summarised_layers
from pipeline_lib.calibration.sources import noise
from pipeline_lib.errors import InputError
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.params.distil import Distil
from tests.conftest import ROOT, make_classifier

CPU = torch.device("cpu")
TRAINED = ROOT / "data/fashion/classifiers/scenes"
PARAMS = Distil(iterations=12, learning_rate=0.3, batch_size=20, seed=0)


def distance(pixels: np.ndarray) -> float:
    """Of a batch's statistics from the running ones of the trained network."""
    loaded = load_classifier(TRAINED / "resnet")
    with torch.no_grad(), summarised_layers(loaded.network, statistics_distance, lambda tokens: tokens) as summaries:
        loaded.network(Normaliser(loaded.data_config, CPU)(pixels))
    return float(sum(summaries.batch_norms.values()))


def predicted(model: str, pixels: np.ndarray) -> np.ndarray:
    loaded = load_classifier(TRAINED / model)
    with torch.no_grad():
        return loaded.network(Normaliser(loaded.data_config, CPU)(pixels)).argmax(1).numpy()


def test_batch_statistics_come_closer_to_the_running_ones(tmp_path: Path) -> None:
    distil(TRAINED / "resnet", PARAMS, 20, 0, CPU, tmp_path / "out")
    images = np.load(tmp_path / "out/images.npy")
    config = load_classifier(TRAINED / "resnet").data_config
    begun = np.stack([np.asarray(sample.image) for sample in noise(20, 0, config)])
    assert distance(images) < distance(begun) / 4
    assert (predicted("resnet", images) == np.arange(20) % 10).mean() > 0.5


def test_a_network_without_batch_norm_gets_varied_patches_and_labels(tmp_path: Path) -> None:
    distil(TRAINED / "vit", PARAMS, 20, 0, CPU, tmp_path / "out")
    images = np.load(tmp_path / "out/images.npy")
    config = load_classifier(TRAINED / "vit").data_config
    begun = np.stack([np.asarray(sample.image) for sample in noise(20, 0, config)])
    varied, before = score(TRAINED / "vit", images, CPU).patch_entropy, score(TRAINED / "vit", begun, CPU).patch_entropy
    assert varied is not None and before is not None
    assert varied.mean() > before.mean() + 0.1
    assert (predicted("vit", images) == np.arange(20) % 10).mean() > 0.5


def test_neither_batch_norm_nor_attention(tmp_path: Path) -> None:
    make_classifier(tmp_path / "swin", "swin")
    with pytest.raises(InputError, match="nothing to distil from"):
        distil(tmp_path / "swin", PARAMS, 4, 0, CPU, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["resnet", "vit"])
def test_the_stage_gives_the_same_bytes_twice(workspace: Path, stage: Callable[..., int], model: str) -> None:
    folder = workspace / f"data/calibration/distilled-{model}"
    written = []
    for _ in range(2):
        assert stage("distil", model) == 0
        written.append([(folder / name).read_bytes() for name in ("images.npy", "samples.csv", "dropped.npy")])
    assert written[0] == written[1]
    table = pd.read_csv(folder / "samples.csv")
    assert list(table["key"][:2]) == ["distilled-000000", "distilled-000001"]
    assert table["classes"].value_counts().to_dict() == {c: 3 if c < 4 else 2 for c in range(10)}
    assert table["kept"].all()
    images = np.load(folder / "images.npy")
    assert images.dtype == np.uint8
    assert len(np.unique(images.reshape(24, -1), axis=0)) == 24
    assert len(np.load(workspace / f"data/preview/distilled-{model}/images.npy")) == 16
