"""Scores and what is chosen by them, on answers known in advance."""

import json
import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline_lib.artifacts.files import sha256
from pipeline_lib.calibration.entropy import BANDWIDTH, patch_entropy
from pipeline_lib.calibration.filters import energy, image_moments, leave_one_out, score
from pipeline_lib.calibration.layers import batch_norms
from pipeline_lib.calibration.selection import Scores, balanced, near_duplicates, select
from pipeline_lib.calibration.sources import pictures
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import resize_and_crop
from pipeline_lib.params.treatments import Treatment
from tests.conftest import ROOT, make_classifier

CPU = torch.device("cpu")
TRAINED = ROOT / "data/fashion/classifiers/scenes"
KEEP_ALL = Treatment(mix="none", energy=0.0, batch_norm=0.0, patch_entropy=0.0, duplicate_similarity=1.0, balance=False)


def rendered(count: int, size: int) -> np.ndarray:
    """Smooth random pictures, (count, size, size, 3)."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False).clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1).numpy()


def scenes(count: int, size: int) -> np.ndarray:
    """Photographs of the Fashion world, (count, size, size, 3)."""
    transform = resize_and_crop({"input_size": [3, size, size], "interpolation": "bicubic", "crop_pct": 1.0})
    return np.stack([transform(s.image) for s in islice(pictures(ROOT / "data/fashion/real/scenes.tar", 0), count)])


def trained_on(folder: Path, pixels: np.ndarray) -> None:
    """The tiny resnet, with the statistics of these images as running ones."""
    make_classifier(folder / "resnet", "resnet")
    loaded = load_classifier(folder / "resnet")
    for layer in batch_norms(loaded.network):
        layer.momentum = None
    with torch.no_grad():
        loaded.network.train()(Normaliser(loaded.data_config, CPU)(pixels))
    save_file(loaded.network.state_dict(), folder / "resnet/model.safetensors")
    card = json.loads((folder / "resnet/model.json").read_text())
    card["sha256"] = sha256(folder / "resnet/model.safetensors")
    (folder / "resnet/model.json").write_text(json.dumps(card))


def test_energy_is_the_negative_logsumexp() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), math.log(4)]])
    assert energy(logits).tolist() == pytest.approx([-math.log(2), -math.log(7)])


def test_leave_one_out_equals_brute_force() -> None:
    x = torch.randn(7, 5, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 1
    mean, variance = torch.linspace(-1, 1, 5).double(), torch.linspace(0.5, 3, 5).double()

    def distance(batch: torch.Tensor) -> float:
        found, centre = torch.var_mean(batch, (0, 2, 3), correction=0)
        return float((centre - mean).square().sum() + (found - variance).square().sum())

    expected = [distance(x) - distance(x[[j for j in range(7) if j != i]]) for i in range(7)]
    found = leave_one_out(image_moments(nn.BatchNorm2d(5), x), mean, variance)
    assert found.tolist() == pytest.approx(expected)


def test_entropy_of_like_patches_is_that_of_the_kernel_and_varied_ones_have_more() -> None:
    alike = torch.ones(1, 9, 4)
    assert float(patch_entropy(alike)) == pytest.approx(math.log(BANDWIDTH * math.sqrt(2 * math.pi * math.e)), abs=0.05)
    halves = torch.ones(1, 8, 4)
    halves[:, :4, :2] *= -1  # cosines of 1 and, between the halves, of 0
    varied = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    assert patch_entropy(alike) < patch_entropy(halves) < patch_entropy(varied)
    density = np.exp(-0.5 * ((np.linspace(-2, 2, 4001)[:, None] - np.repeat([0.0, 1.0], [16, 12])) / BANDWIDTH) ** 2)
    density = density.mean(1) / (BANDWIDTH * math.sqrt(2 * math.pi))
    exact = -np.sum(density * np.log(density + 1e-300)) * 1e-3
    assert float(patch_entropy(halves)) == pytest.approx(exact, abs=0.05)


def test_batch_norm_finds_the_planted_images(tmp_path: Path) -> None:
    pixels = rendered(24, 32)
    trained_on(tmp_path, pixels)
    pixels[[3, 11]] = np.random.default_rng(0).integers(0, 2, (2, 32, 32, 3), dtype=np.uint8) * 255
    scores = score(tmp_path / "resnet", pixels, CPU)
    assert scores.batch_norm is not None
    assert scores.patch_entropy is None, "no attention"
    assert set(np.argsort(-scores.batch_norm)[:2]) == {3, 11}
    reasons = select(KEYS[:24], [[]] * 24, pixels, scores, KEEP_ALL.model_copy(update={"batch_norm": 0.1}), 24)
    assert {i: reason for i, reason in enumerate(reasons) if reason} == dict.fromkeys((3, 11), "batch-norm sensitivity")
    assert score(tmp_path / "resnet", pixels[:1], CPU).batch_norm is None, "there is no other image"


def test_patch_entropy_finds_the_constant_image() -> None:
    pixels = scenes(20, 32)
    pixels[4] = 128
    scores = score(TRAINED / "vit", pixels, CPU)
    assert scores.batch_norm is None, "no batch norm"
    assert scores.patch_entropy is not None
    reasons = select(KEYS[:20], [[]] * 20, pixels, scores, KEEP_ALL.model_copy(update={"patch_entropy": 0.05}), 20)
    assert {i: reason for i, reason in enumerate(reasons) if reason} == {4: "patch entropy"}


KEYS = [f"k-{i}" for i in range(400)]


def test_energy_drops_the_highest_of_what_is_left_after_duplicates() -> None:
    pixels = rendered(10, 8)
    pixels[9] = pixels[0]
    scores = Scores(np.arange(10.0), None, None)
    reasons = select(KEYS[:10], [[]] * 10, pixels, scores, KEEP_ALL.model_copy(update={"energy": 0.23}), 6)
    assert reasons == [""] * 6 + ["surplus", "energy", "energy", "near-duplicate of k-0"]


def test_near_duplicates_name_their_original_across_blocks() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(20, 230, (300, 8, 8, 3), dtype=np.uint8)
    noisy = np.clip(pixels[5] + rng.normal(0, 3, (8, 8, 3)), 0, 255).astype(np.uint8)
    pixels[280], pixels[290] = noisy, noisy
    pixels[7], pixels[8] = 100, 200  # constant images have no direction
    assert near_duplicates(pixels, 0.97) == {280: 5, 290: 5}
    assert near_duplicates(pixels, 1.0) == {290: 280}
    reasons = select(KEYS[:300], [[]] * 300, pixels, Scores(np.zeros(300), None, None), KEEP_ALL, 300)
    assert {i: reason for i, reason in enumerate(reasons) if reason} == {290: "near-duplicate of k-280"}


def test_balance_fills_classes_evenly() -> None:
    classes = [[0]] * 20 + [[1]] * 4 + [[2]] * 20
    taken = balanced(range(44), classes, 12)
    assert sorted(classes[i][0] for i in taken) == [0] * 4 + [1] * 4 + [2] * 4
    more = [classes[i][0] for i in balanced(range(44), classes, 24)]
    assert [more.count(c) for c in range(3)] == [10, 4, 10], "a class that has no more leaves its place to the others"
    pairs = [[0, 1], [0, 2], [0, 3], [1, 2], [3, 0]]
    assert sorted(balanced(range(5), pairs, 3)) == [0, 1, 2], "an image is taken if one of its classes is short"
    assert balanced(range(5), [[]] * 5, 3) == [0, 1, 2], "no classes, nothing to balance"


@pytest.mark.parametrize("model", ["resnet", "vit"])
def test_scores_do_not_depend_on_the_batch(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = rendered(6, 64 if model == "resnet" else 32)
    whole = score(TRAINED / model, pixels, CPU)
    monkeypatch.setattr("pipeline_lib.calibration.filters.BATCH", 4)
    parts = score(Path(TRAINED / model), pixels, CPU)
    assert whole.energy == pytest.approx(parts.energy, rel=1e-4)
    for one, other in ((whole.batch_norm, parts.batch_norm), (whole.patch_entropy, parts.patch_entropy)):
        assert (one is None) == (other is None)
        assert one is None or one == pytest.approx(other, rel=1e-3, abs=1e-5)
