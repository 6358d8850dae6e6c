"""Images of large values: they take neither the grid nor the loss from the others."""

import pytest
import torch

from pipeline_lib.quantization.losses import RelativeError, reconstruction_error
from pipeline_lib.quantization.quantizers import LogSqrt2Quantizer, State, UniformQuantizer
from pipeline_lib.quantization.ranges import SAMPLE, ActivationSample, search_symmetric


def images(count: int, *, large: int = 0) -> torch.Tensor:
    """(count, 8, 10, 10), half-normal, channels_last; the last `large` are twenty times the others."""
    x = torch.randn(count, 8, 10, 10, generator=torch.Generator().manual_seed(0)).abs()
    x[count - large :] *= 20
    return x.contiguous(memory_format=torch.channels_last)


def step(x: torch.Tensor, *, symmetric: bool = True, how: str = "lp") -> float:
    quantizer = UniformQuantizer(4, symmetric=symmetric)
    quantizer.search_grid(ActivationSample.of(x), how)
    return float(quantizer.step)


@pytest.mark.parametrize("symmetric", [True, False])
def test_few_images_of_large_values_do_not_take_the_grid(symmetric: bool) -> None:
    alone, together = (step(images(20, large=large), symmetric=symmetric) for large in (0, 2))
    assert together < 4 * alone
    assert step(images(20, large=2), symmetric=symmetric, how="minmax") > 15 * alone
    unweighted = search_symmetric(images(20, large=2).flatten(), 4, "lp")[0]
    assert unweighted > 10 * alone, "which a plain mean lets them"
    assert step(images(20, large=18), symmetric=symmetric) > 10 * alone, "where they are the most, the grid is theirs"


def test_an_image_without_values_does_not_disturb() -> None:
    x = images(20)
    x[3:5] = 0
    assert step(x) == pytest.approx(step(images(20)), rel=0.1)
    assert step(torch.zeros(4, 3)) > 0


def test_a_sample_knows_the_image_of_each_value() -> None:
    x = torch.arange(1.0, 5).view(4, 1, 1).expand(4, 3, SAMPLE)
    few, one = ActivationSample.of(x), ActivationSample.of(x[:1, :, :7])
    assert len(few.values) == SAMPLE and len(one.values) == 21
    assert torch.allclose(few.powers, few.values**2.4)
    joined = ActivationSample.joined([few, one])
    assert len(joined.values) == SAMPLE
    assert torch.allclose(joined.powers, joined.values**2.4)


def test_the_first_level_of_a_softmax_is_searched() -> None:
    weights = torch.full((2, 50_000), 0.1)
    weights[0, 0] = 1
    for how, top in (("lp", 0.1), ("percentile", 0.1), ("minmax", 1.0)):
        quantizer = LogSqrt2Quantizer(4)
        quantizer.search_grid(
            ActivationSample(weights.flatten(), torch.ones(100_000), torch.stack(weights.aminmax())), how
        )
        assert float(quantizer.step) == pytest.approx(top)
    spread = torch.rand(1, 1000, generator=torch.Generator().manual_seed(0))
    quantizer = LogSqrt2Quantizer(3)
    quantizer.search_grid(ActivationSample.of(spread), "lp")
    errors = {
        p: (spread - _quantized(spread, float(spread.quantile(p)))).square().mean() for p in (0.999, 0.9999, 0.99999)
    }
    assert float(quantizer.step) == pytest.approx(float(spread.quantile(min(errors, key=lambda p: errors[p]))))


def _quantized(x: torch.Tensor, top: float) -> torch.Tensor:
    quantizer = LogSqrt2Quantizer(3)
    quantizer.step, quantizer.state = torch.tensor(top), State.QUANTIZED
    return quantizer(x)


@pytest.mark.parametrize("shape", [(6, 4, 5, 5), (6, 7, 4), (6, 10)])
def test_relative_error(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(shape, generator=generator)
    target /= RelativeError.power(target).sqrt().view(-1, *[1] * (len(shape) - 1))
    error = 0.1 * torch.randn(shape, generator=generator)
    loss = RelativeError(torch.tensor(1.0))
    expected = reconstruction_error(target + error, target).item()
    assert loss(target + error, target).item() == pytest.approx(expected, rel=0.01), "as the plain one, powers equal"
    scale = torch.tensor([1.0, 1, 1, 1, 1, 100]).view(-1, *[1] * (len(shape) - 1))
    scaled = loss(scale * (target + error), scale * target).item()
    assert scaled == pytest.approx(expected, rel=0.01), "a hundred times as large, an image counts the same"
    assert loss(torch.ones(shape), torch.zeros(shape)).isfinite()
