"""Losses of a unit by name: each is what a method asks for, and reconstruction lowers it."""

from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch

from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.losses import LOSSES, cosine_distance
from tests.quantization.test_quantization import calibration, methods, run

__all__ = ["calibration"]  # a fixture


def test_every_error_that_a_method_may_name_has_a_loss() -> None:
    assert set(LOSSES) == set(get_args(Method.model_fields["error"].annotation))


def test_cosine_distance_is_of_directions() -> None:
    loss = cosine_distance(None)
    target = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert loss(7 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(-target, target).item() == pytest.approx(2, abs=1e-6)
    one, other = torch.eye(2)
    assert loss(torch.stack([one, one]), torch.stack([one, other])).item() == pytest.approx(0.5)


@pytest.mark.parametrize("error", ["absolute", "cosine"])
def test_reconstruction_lowers_the_loss_that_it_was_given(calibration: dict[str, Path], error: str) -> None:
    changes = {"error": error, "tune_iterations": 0, "rounding_weight": 0.001}
    chosen = {name: method.model_copy(update=changes) for name, method in methods(60).items()}
    blocks = pd.read_csv(run(calibration["resnet"], "resnet", Path("out"), chosen) / "blocks.csv").iloc[1:]
    assert (blocks["loss_after"] < blocks["loss_before"]).all(), blocks
    if error == "cosine":
        assert blocks["loss_before"].between(0, 2).all()
