"""Tuning of a whole network: on views of the images, and with integers that move."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline_lib import progress
from pipeline_lib.artifacts.fingerprints import digest_path
from pipeline_lib.params.everything import read_preset
from pipeline_lib.params.reconstruct import Precision, Reconstruct
from pipeline_lib.quantization import quantize as quantize_module
from pipeline_lib.quantization.caches import Caches
from pipeline_lib.quantization.layers import QuantLayer
from pipeline_lib.quantization.quantize import Quantization, quantize
from pipeline_lib.quantization.quantizers import UniformQuantizer
from pipeline_lib.quantization.reconstruction import UnitResult
from pipeline_lib.quantization.views import ViewFeed, draw_views, view

PRESET = read_preset("default")


@pytest.fixture
def calibration(workspace: Path) -> Path:
    path = workspace / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    return path


def pictures(count: int, size: int = 16) -> torch.Tensor:
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def test_a_view_is_a_crop_perhaps_mirrored_and_mixed_with_the_image_before() -> None:
    images = pictures(3)
    whole = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(3, 2, 3)
    assert torch.allclose(view(images, whole, torch.ones(3)), images, atol=1e-5)
    mirrored = whole * torch.tensor([[-1.0, 1, 1], [1, 1, 1]])
    assert torch.allclose(view(images, mirrored, torch.ones(3)), images.flip(3), atol=1e-5)
    mixed = view(images, whole, torch.tensor([1.0, 0.25, 1.0]))
    assert torch.allclose(mixed[1], 0.25 * images[1] + 0.75 * images[0], atol=1e-5)
    places = (2 * torch.arange(16) + 1) / 16 - 1
    ramps = torch.stack(torch.meshgrid(places, places, indexing="xy")).unsqueeze(0)  # of each pixel, x and y
    quarter = view(ramps, torch.tensor([[[0.5, 0, 0.5], [0, 0.5, -0.5]]]), torch.ones(1))  # at the upper right
    expected = torch.stack([0.5 * ramps[0, 0] + 0.5, 0.5 * ramps[0, 1] - 0.5])
    assert torch.allclose(quarter[0, :, 1:, :-1], expected[:, 1:, :-1], atol=1e-5), "but at the image's own border"
    for layout in (torch.contiguous_format, torch.channels_last):
        arranged = images.contiguous(memory_format=layout)
        assert view(arranged, whole, torch.ones(3)).is_contiguous(memory_format=layout)


def test_drawn_views_lie_within_their_images_and_no_two_are_the_same() -> None:
    crops, weights = draw_views((500, 4), 1, seed=3)
    assert crops.shape == (500, 4, 2, 3) and weights.shape == (500, 4)
    reach = crops[..., :2].abs().sum(-1) + crops[..., 2].abs()
    assert reach.min() > 0.5 and reach.max() <= 1 + 1e-6
    area = crops[..., 0, 0] * crops[..., 1, 1]
    assert area.abs().min() > 0.45 and 0.4 < (area < 0).float().mean() < 0.6
    assert 0.35 < (weights < 1).float().mean() < 0.45 and weights.min() >= 0
    assert len(crops.flatten(0, 1).flatten(1).unique(dim=0)) > 1980, "a few are the images as they are"
    assert all(map(torch.equal, draw_views((500, 4), 1, seed=3), (crops, weights)))
    assert not torch.equal(draw_views((500, 4), 1, seed=4)[0], crops)


@pytest.mark.parametrize(("images", "share"), [(50, 0.1), (250, 0.5), (500, 1.0), (900, 1.0)])
def test_an_image_is_seen_as_it_is_a_few_times(images: int, share: float) -> None:
    crops, weights = draw_views((500, 4), images, seed=0)
    as_it_is = (crops == torch.tensor([[1.0, 0, 0], [0, 1, 0]])).flatten(2).all(-1)
    assert as_it_is.float().mean() == pytest.approx(share, abs=0.05)
    assert (weights[as_it_is] == 1).all()


def test_every_iteration_has_new_views_and_what_the_network_says_of_them(tmp_path: Path) -> None:
    images = pictures(2)
    cache = Caches(torch.device("cpu"), 1.0, tmp_path).store(2, [images])
    network = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), 4))
    feed = ViewFeed(cache, network, torch.zeros(1000, 3, dtype=torch.int64), seed=0)
    seen = []
    for iteration in (0, 1, 0):
        feed.load(iteration)
        views, again, logits = feed.batch()
        assert again is views and torch.equal(logits, network(views)) and not logits.requires_grad
        seen.append(views)
    assert torch.equal(seen[0], seen[2])
    assert not torch.allclose(seen[0], seen[1], atol=0.1) and not torch.allclose(seen[0][0], seen[0][1], atol=0.1)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per_tensor", [True, False])
def test_moving_integers_begin_where_they_were_and_stay_on_the_grid(symmetric: bool, per_tensor: bool) -> None:
    torch.manual_seed(0)
    quantizer = UniformQuantizer(4, symmetric=True)
    layer = QuantLayer(nn.Conv2d(3, 4, 3), 2, quantizer, symmetric=symmetric, per_tensor=per_tensor)
    layer.search_grid("lp")
    layer.freeze(layer.nearest())
    x, before = torch.randn(2, 3, 8, 8), layer.integers.clone()
    expected = layer(x)
    layer.learn("log")
    moved = layer.learn_integers()
    assert torch.allclose(layer(x), expected, atol=1e-6)
    layer(x).square().sum().backward()
    inside = moved.grad != 0
    assert inside.any()
    with torch.no_grad():
        moved += torch.where(torch.arange(moved.numel()).view_as(moved) % 3 == 0, 0.6, 0.0)
        moved[0, 0, 0, 0] = 100
    share = layer.harden()
    assert share == pytest.approx((layer.integers != before).float().mean().item())
    assert 0 < share < 0.5
    assert layer.integers[0, 0, 0, 0] == 3 and layer.integers.max() <= 3


def run(out: Path, calibration: Path, **changes: float) -> Path:
    method = PRESET.methods["tuned"].model_copy(update={"iterations": 4, **changes})
    precision = Precision(weight_bits=2, activation_bits=4)
    params = Reconstruct(**PRESET.reconstruct.model_dump() | {"held_out": 4, "range_images": 8, "batch_size": 4})
    how = Quantization(precision, params, {"tuned": method}, torch.device("cpu"), 1.0)
    quantize(calibration, Path("world/classifiers/resnet"), how, out)
    return out


def test_integers_move_where_they_have_a_rate(calibration: Path) -> None:
    runs = {
        rate: run(Path(f"{rate}"), calibration, tune_iterations=40, learning_rate_integer=rate) for rate in (0, 0.05)
    }
    untuned = load_file(run(Path("untuned"), calibration, tune_iterations=0) / "model.safetensors")
    integers = [key for key in untuned if key.endswith("integers")]
    same = {
        rate: [torch.equal(load_file(out / "model.safetensors")[key], untuned[key]) for key in integers]
        for rate, out in runs.items()
    }
    assert all(same[0]) and not all(same[0.05])
    rows = {rate: pd.read_csv(out / "blocks.csv").iloc[-1] for rate, out in runs.items()}
    assert rows[0]["flipped"] == 0 < rows[0.05]["flipped"]
    assert all(row["loss_after"] < row["loss_before"] for row in rows.values())


def test_progress_counts_iterations_and_a_run_that_goes_on_begins_where_it_was(
    calibration: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    real = quantize_module.tune_network

    def killed(*arguments: Any) -> UnitResult:
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(quantize_module, "tune_network", killed)
    with pytest.raises(KeyboardInterrupt):
        run(Path("out"), calibration, tune_iterations=9)
    begun = re.findall(r"out: (\d+)/40", capsys.readouterr().err)  # 6 units of 4 iterations, 9, and one more for each
    assert begun == [str(i) for i in range(1, 40)]
    monkeypatch.setattr(quantize_module, "tune_network", real)
    run(Path("out"), calibration, tune_iterations=9)
    lines = capsys.readouterr().err.splitlines()
    assert re.findall(r"out: (\d+)/40", "\n".join(lines)) == [str(i) for i in range(31, 41)]
    assert re.search(r"7/7 network: loss \S+ -> \S+$", lines[-1])


def test_images_that_are_kept_back_are_not_learned_from(calibration: Path) -> None:
    out = run(Path("out"), calibration, tune_iterations=40)  # half of what they draw are views
    images = np.load(calibration)
    images[-4:] = 255 - images[-4:]
    np.save(calibration, images)
    other = run(Path("other"), calibration, tune_iterations=40)
    assert digest_path(out / "model.safetensors") == digest_path(other / "model.safetensors")
    held, other_held = (pd.read_csv(folder / "blocks.csv")["held_out_after"] for folder in (out, other))
    assert (held != other_held).all()


@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_a_tuning_that_does_not_help_is_undone(
    calibration: Path, rate: float, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(Path("out"), calibration, tune_iterations=40, tune_rate=rate, learning_rate_integer=0.05)
    told = capsys.readouterr().err
    row = pd.read_csv(out / "blocks.csv").iloc[-1]
    untuned = run(Path("untuned"), calibration, tune_iterations=0)
    same = (out / "model.safetensors").read_bytes() == (untuned / "model.safetensors").read_bytes()
    if rate > 1:
        assert same and row["flipped"] == 0
        assert row["loss_after"] == row["loss_before"] and row["held_out_after"] == row["held_out_before"]
        assert "tuning of the whole network is undone" in told and "tune_rate" in told
    else:
        assert not same and row["loss_after"] < row["loss_before"]
        assert "undone" not in told
