"""Metrics against hand-counted cases, preprocessing, and the gap."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom
from torch import nn

from pipeline_lib.evaluation.gap import unit_losses
from pipeline_lib.evaluation.metrics import accuracy_metrics
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import resize_and_crop


def test_metrics() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    top5 = np.array([[0, 1], [1, 0], [1, 0], [1, 2], [0, 1]])
    summary = accuracy_metrics(labels, top5, 0.95, np.array([0, 1, 1, 0, 0]))
    assert summary["top1"] == 60
    assert summary["top5"] == 80
    assert summary["agreement"] == 80
    assert summary["per_class"] == {"0": 50, "1": 100, "2": 0}
    assert summary["top1_low"] < 60 < summary["top1_high"]


def test_interval_covers_at_its_confidence() -> None:
    n, p, covered = 200, 0.8, 0.0
    for hits in range(n + 1):
        labels = np.zeros(n, int)
        top5 = np.array([[0]] * hits + [[1]] * (n - hits))
        summary = accuracy_metrics(labels, top5, 0.95)
        if summary["top1_low"] <= 100 * p <= summary["top1_high"]:
            covered += binom.pmf(hits, n, p)
    assert 0.93 < covered < 0.97


def test_preprocessing_is_timms() -> None:
    from timm.data import create_transform

    config = {
        "input_size": (3, 24, 24),
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    expected = create_transform(**config, is_training=False)(image)
    pixels = resize_and_crop(config)(image)
    assert pixels.shape == (24, 24, 3)
    ours = Normaliser(config, torch.device("cpu"))(pixels[None])[0]
    assert torch.allclose(ours, expected, atol=1e-6)


def test_gap_is_zero_for_the_same_network_and_counts_in_place_activations() -> None:
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))
    other.load_state_dict(reference.state_dict())
    x = [torch.randn(5, 3, 8, 8), torch.randn(3, 3, 8, 8)]
    assert unit_losses(reference, other, ["0", "2"], x) == pytest.approx([0, 0])
    with torch.no_grad():
        other[0].bias += 1
    assert unit_losses(reference, other, ["0", "2"], x)[0] == pytest.approx(4, rel=1e-4)
