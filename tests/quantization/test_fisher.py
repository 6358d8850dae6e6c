"""Fisher weighting: to second order it is the divergence of the classes, and in-place activations do not disturb it."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from pipeline_lib.params.reconstruct import Method
from pipeline_lib.quantization.fisher import FisherError, fisher_factors
from pipeline_lib.quantization.step import class_divergence
from tests.quantization.test_quantization import METHODS, calibration, network, run

__all__ = ["calibration"]  # a fixture


def factors_of(built: nn.Module, unit: str, x: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    (found,) = fisher_factors(built, unit, [x], rank)
    return found


@pytest.mark.parametrize(("family", "unit"), [("vit", "blocks.0"), ("mobilenetv2", "blocks.5.0")])
def test_with_all_classes_it_is_the_divergence_of_a_small_error(family: str, unit: str) -> None:
    built, x = (value.double() for value in network(family))
    built.get_classifier().weight.mul_(2 / (built(x) - built.get_classifier().bias).std())  # classes that differ
    captured: list[torch.Tensor] = []
    handle = built.get_submodule(unit).register_forward_hook(lambda _, __, y: captured.append(y.clone()))
    logits = built(x)
    handle.remove()
    factors, squared = factors_of(built, unit, x, 10)
    target = captured[0]
    error = 1e-4 * target.std() * torch.randn_like(target)
    loss = FisherError(torch.zeros_like(squared[0]))(target + error, target, factors)
    handle = built.get_submodule(unit).register_forward_hook(lambda _, __, y: y + error)
    divergence = class_divergence(built(x), logits)
    handle.remove()
    assert loss.item() == pytest.approx(divergence.item(), rel=0.01)
    fewer, _ = factors_of(built, unit, x, 3)
    assert torch.equal(fewer, factors[:, :3]), "the likeliest classes come first"


def test_probes_have_the_diagonal_on_average() -> None:
    built, x = network("vit")
    factors, _ = factors_of(built, "blocks.1", x, 10)
    expected = factors.square().sum(1).mean(0)
    many = x[:1].repeat(4000, 1, 1, 1)
    factors, squared = factors_of(built, "blocks.1", many, 10)
    assert torch.allclose(squared.mean(0), factors[0].square().sum(0), rtol=0.3, atol=0.02 * expected.max().item())


@pytest.mark.parametrize("loss", [{"fisher_rank": 2, "head": "kl"}, {"error": "relative"}, {"error": "absolute"}])
def test_images_kept_back_do_not_change_what_is_learned(
    calibration: dict[str, Path], workspace: Path, loss: dict[str, object]
) -> None:
    """The last eight images are replaced."""
    import numpy as np

    how: dict[str, Method] = {
        family: method.model_copy(update={"iterations": 3, **loss}) for family, method in METHODS.items()
    }
    images = np.load(calibration["vit"])
    images[-8:] = 255 - images[-8:]
    np.save(workspace / "other.npy", images)
    one, two = run(calibration["vit"], "vit", Path("one"), how), run(workspace / "other.npy", "vit", Path("two"), how)
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (one / "blocks.csv").read_bytes() != (two / "blocks.csv").read_bytes()


def test_a_network_with_activations_in_place() -> None:
    built = timm.create_model("mobilenetv2_035", num_classes=10).eval().requires_grad_(False)
    factors, squared = factors_of(built, "conv_stem", torch.randn(2, 3, 32, 32), 2)
    assert factors.shape == (2, 2, 16, 16, 16) and squared.shape == (2, 16, 16, 16)
    assert factors.abs().sum() > 0
