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
from pipeline_lib.params.everything import read_everything
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.quantization import quantize as quantize_module
from pipeline_lib.quantization.prefix import Prefix
from pipeline_lib.quantization.quantize import quantize
from pipeline_lib.quantization.quantizers import QuantLayer, UniformQuantizer
from pipeline_lib.quantization.reconstruction import UnitResult
from pipeline_lib.quantization.step import UnitData
from pipeline_lib.quantization.views import view_count, views
from tests.conftest import ROOT

PRESET = read_everything(ROOT / "pipeline_lib/presets/default.yaml")


@pytest.fixture
def calibration(workspace: Path) -> Path:
    path = workspace / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    return path


def pictures(count: int, size: int = 16) -> torch.Tensor:
    x = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def test_the_first_view_is_the_images_and_the_others_are_other_pictures_of_them() -> None:
    batches = list(pictures(12).split(5))
    seen = list(views(batches, 3, seed=7))
    assert [len(batch) for batch in seen] == [5, 5, 2] * 3
    assert all(torch.equal(view, batch) for view, batch in zip(seen, batches, strict=False))
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in seen)
    first, second, third = (torch.cat(seen[i : i + 3]) for i in (0, 3, 6))
    for one, other in ((first, second), (first, third), (second, third)):
        assert (one - other).flatten(1).abs().amax(1).min() > 0.1
    constant = torch.ones(8, 3, 9, 9)
    assert all(torch.allclose(view, constant) for view in views([constant], 3, seed=0)), "no border, no new brightness"


def test_views_depend_on_the_seed_and_leave_the_global_generator_alone() -> None:
    batches = list(pictures(6).split(3))
    torch.manual_seed(0)
    one = torch.cat(list(views(batches, 2, seed=1)))
    following = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.cat(list(views(batches, 2, seed=1))), one)
    assert not torch.equal(torch.cat(list(views(batches, 2, seed=2))), one)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), following)


def test_there_are_no_more_views_than_are_drawn() -> None:
    assert [view_count(draws, 100) for draws in (10, 100, 350, 10**6)] == [1, 1, 3, 16]


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
    precision = Precision(weight_bits=2, activation_bits=4, cnn_policy="brecq", vit_policy="vit")
    params = Reconstruct(**PRESET.reconstruct.model_dump() | {"held_out": 4, "range_images": 8, "batch_size": 4})
    methods: dict[str, Method] = {"cnn": method, "vit": method}
    folder = Path("world/classifiers/resnet")
    quantize(calibration, folder, precision, params, methods, torch.device("cpu"), 1.0, out)
    return out


def test_integers_move_where_they_have_a_rate(calibration: Path) -> None:
    runs = {
        rate: run(Path(f"{rate}"), calibration, tune_iterations=40, learning_rate_integer=rate) for rate in (0, 0.1)
    }
    untuned = load_file(run(Path("untuned"), calibration, tune_iterations=0) / "model.safetensors")
    integers = [key for key in untuned if key.endswith("integers")]
    same = {
        rate: [torch.equal(load_file(out / "model.safetensors")[key], untuned[key]) for key in integers]
        for rate, out in runs.items()
    }
    assert all(same[0]) and not all(same[0.1])
    rows = {rate: pd.read_csv(out / "blocks.csv").iloc[-1] for rate, out in runs.items()}
    assert rows[0]["flipped"] == 0 < rows[0.1]["flipped"]
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


def test_views_are_learned_from_and_held_out_images_have_none(
    calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[UnitData] = []
    real = Prefix.whole

    def whole(self: Prefix, draws: int, seed: int) -> UnitData:
        seen.append(real(self, draws, seed))
        return seen[-1]

    monkeypatch.setattr(Prefix, "whole", whole)
    for iterations in (9, 15):  # of 4 images, out of 20
        run(Path(f"{iterations}"), calibration, tune_iterations=iterations)
    one, three = ([torch.cat(list(c.batches(64))) for c in (data.quantized_input, data.target)] for data in seen)
    images, trained = len(one[0]), len(one[0]) - 4
    assert len(three[0]) == 3 * trained + 4
    for alone, viewed in zip(one, three, strict=True):  # pictures, logits
        assert torch.equal(viewed[:trained], alone[:trained]) and torch.equal(viewed[-4:], alone[-4:])
    assert images == len(one[1])
    assert not torch.allclose(three[1][trained : 2 * trained], three[1][:trained])
