"""Fisher weighting: its gradient is that of the classes' divergence, also where what follows works in place."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.fisher import TEMPERATURE, FisherError, class_gradient
from tests.quantization.test_quantization import METHODS, calibration, network, run

__all__ = ["calibration"]  # a fixture


@pytest.mark.parametrize(("family", "unit"), [("vit", "blocks.0"), ("mobilenetv2", "conv_stem")])
def test_the_gradient_is_that_of_the_divergence_of_the_classes(family: str, unit: str) -> None:
    """conv_stem is followed by an activation in place."""
    built, x = (value.double() for value in network(family))
    built.get_classifier().weight.mul_(20 / (built(x) - built.get_classifier().bias).std())  # classes that differ
    captured: list[torch.Tensor] = []
    handle = built.get_submodule(unit).register_forward_hook(lambda _, __, y: captured.append(y.clone()))
    classes = built(x)
    handle.remove()
    output = captured[0] + 0.1 * captured[0].std() * torch.randn_like(captured[0])
    gradient = class_gradient(built, unit, x.split([3, 1]), output.split([3, 1]), classes)

    error = (output - captured[0]).requires_grad_()
    handle = built.get_submodule(unit).register_forward_hook(lambda _, __, y: y + error)
    moved = (built(x) / TEMPERATURE).log_softmax(-1)
    handle.remove()
    divergence = nn.functional.kl_div(moved, (classes / TEMPERATURE).softmax(-1), reduction="sum")
    (expected,) = torch.autograd.grad(divergence, error)
    expected = expected.abs().mean(0)
    assert expected.max() > 0
    assert torch.allclose(gradient / gradient.mean(), expected / expected.mean(), rtol=1e-6)


def test_the_loss_is_one_for_the_errors_that_it_was_made_from_and_grows_where_the_gradient_is() -> None:
    gradient = torch.tensor([[1e-9, 3e-9]])
    target, error = torch.randn(2, 1, 2), torch.tensor([[[2.0, -1.0]], [[0.0, 4.0]]])
    loss = FisherError(gradient, [(target[:1] + error[:1], target[:1]), (target[1:] + error[1:], target[1:])])
    assert loss(target + error, target).item() == pytest.approx(1)
    # weights 1/2, 3/2: (2/2 + 3/2)^2 and (4 * 3/2)^2; 4/2 + 3/2 and 16 * 3/2
    here, there = (target + torch.tensor(d) for d in ([[1.0, 0.0]], [[0.0, 1.0]]))
    first = torch.tensor([6.25 + 36, 3.5 + 24])
    assert loss(here, target).item() == pytest.approx(0.25 / first[0].item() + 0.5 / first[1].item())
    assert loss(there, target).item() == pytest.approx(2.25 / first[0].item() + 1.5 / first[1].item())


@pytest.mark.parametrize(
    "loss", [{"error": "fisher", "head": "kl"}, {"error": "relative"}, {"error": "absolute", "head": "squared"}]
)
def test_images_kept_back_do_not_change_what_is_learned(
    calibration: dict[str, Path], workspace: Path, loss: dict[str, object]
) -> None:
    """The last eight images are replaced."""
    how: dict[str, Method] = {
        name: method.model_copy(update={"iterations": 3, **loss}) for name, method in METHODS.items()
    }
    images = np.load(calibration["vit"])
    images[-8:] = 255 - images[-8:]
    np.save(workspace / "other.npy", images)
    one, two = run(calibration["vit"], "vit", Path("one"), how), run(workspace / "other.npy", "vit", Path("two"), how)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (one / "blocks.csv").read_bytes() != (two / "blocks.csv").read_bytes()


def test_losses_are_relative_to_nearest(calibration: dict[str, Path], workspace: Path) -> None:
    changes = {"iterations": 3, "tune_iterations": 0, "error": "fisher", "head": "squared"}
    how = {"tuned-vit": METHODS["tuned-vit"].model_copy(update=changes)}
    blocks = pd.read_csv(run(calibration["vit"], "vit", Path("out"), how) / "blocks.csv")
    assert blocks.loss_before.to_numpy() == pytest.approx(1, rel=1e-3)
    assert (blocks.loss_after != blocks.loss_before).all()
