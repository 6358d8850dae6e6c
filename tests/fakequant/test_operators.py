"""The operators against a float64 oracle, and their gradients against the stated formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.fakequant import fake_quant, fake_quant_drop, log_sqrt2_quant, soft_round
from pipeline_lib.fakequant.reference import _exp2, _log2, keep_mask, philox, rounding_regulariser, sigmoid, soft_bits


def grid(channels: int | None, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shape = () if channels is None else (channels,)
    return torch.rand(shape, generator=g) * 0.3 + 0.05, torch.randint(0, 8, shape, generator=g).float()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 1]), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_forward_is_the_formula(seed: int, axis: int | None, bits: int, last: bool) -> None:
    x = torch.randn(3, 5, 4, 2, generator=torch.Generator().manual_seed(seed)) * 2
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    step, zero = grid(None if axis is None else x.shape[axis], seed)
    y = fake_quant(x, step, zero, 0, 2**bits - 1, axis)
    shape = [-1 if d == axis else 1 for d in range(4)]
    s, z = (step, zero) if axis is None else (step.view(shape), zero.view(shape))
    levels = torch.clamp(torch.round(x / s) + z, 0, 2**bits - 1)
    assert torch.equal(y, (levels - z) * s)
    oracle = (levels.double() - z.double()) * s.double()
    assert torch.allclose(y.double(), oracle, rtol=1e-6, atol=0)
    assert torch.equal(fake_quant(y, step, zero, 0, 2**bits - 1, axis), y), "idempotent"
    assert y.stride() == x.stride()


def test_special_values() -> None:
    step, zero = torch.tensor(0.5), torch.tensor(1.0)
    x = torch.tensor([math.inf, -math.inf, math.nan, 0.25, 0.75, -0.25])
    y = fake_quant(x, step, zero, 0, 3, None)
    assert y[:2].tolist() == [1.0, -0.5]
    assert y[2].isnan()
    assert y[3:].tolist() == [0.0, 1.0, 0.0], "ties go to even"
    assert fake_quant(torch.empty(0), step, zero, 0, 3, None).shape == (0,)


def test_gradients_are_straight_through_and_lsq() -> None:
    x = torch.tensor([-3.0, -0.4, 0.3, 0.9, 5.0], requires_grad=True)
    step, zero = torch.tensor(0.5, requires_grad=True), torch.tensor(1.0)
    fake_quant(x, step, zero, 0, 3, None).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 0]
    ratio = x.detach() / 0.5
    inside = torch.round(ratio) - ratio
    assert step.grad.item() == pytest.approx((-1 + inside[1:4].sum() + 2).item())


def test_drop_mixes_and_its_backward_uses_the_same_mask() -> None:
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    step, zero, seed = torch.tensor(0.1, requires_grad=True), torch.tensor(3.0), torch.tensor(11)
    mask = keep_mask(x, 0.5, seed)
    y = fake_quant_drop(x, step, zero, 0, 7, 0.5, seed)
    quantized = fake_quant(x.detach(), step.detach(), zero, 0, 7, None)
    assert torch.equal(y.detach(), torch.where(mask, quantized, x.detach()))
    y.sum().backward()
    level = torch.round(x.detach() / step.detach()) + zero
    assert torch.equal(x.grad, (~mask | ((level >= 0) & (level <= 7))).float())
    alone = step.detach().clone().requires_grad_()
    (fake_quant(x.detach(), alone, zero, 0, 7, None) * mask).sum().backward()
    assert step.grad.item() == pytest.approx(alone.grad.item(), rel=1e-4)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_mask_share_and_reproducibility(p: float) -> None:
    x = torch.empty(100_003)
    mask = keep_mask(x, p, torch.tensor(3))
    assert mask.float().mean().item() == pytest.approx(p, abs=0.01)
    assert torch.equal(mask, keep_mask(x, p, torch.tensor(3)))
    if 0 < p < 1:
        assert not torch.equal(mask, keep_mask(x, p, torch.tensor(4)))


def test_soft_round_against_autograd_of_the_formula() -> None:
    g = torch.Generator().manual_seed(0)
    v = (torch.randn(6, 4, generator=g) * 2).requires_grad_()
    base = torch.randint(-3, 4, (6, 4), generator=g).to(torch.int16)
    step, zero = grid(6)
    step = step.requires_grad_()
    beta, lam = torch.tensor(5.0), torch.tensor(0.3)
    weight = torch.randn(6, 4, generator=g)
    (soft_round(v, base, step, zero, 0, 7, beta, lam) * weight).sum().backward()
    v2, step2 = v.detach().clone().requires_grad_(), step.detach().clone().requires_grad_()
    h = torch.clamp(torch.sigmoid(v2) * 1.2 - 0.1, 0, 1)
    formula = step2[:, None] * (torch.clamp(base + h + zero[:, None], 0, 7) - zero[:, None])
    ((formula * weight).sum() + lam * (1 - (2 * h - 1).abs() ** beta).sum()).backward()
    assert torch.allclose(v.grad, v2.grad, atol=1e-6)
    assert torch.allclose(step.grad, step2.grad, atol=1e-5)
    assert v.grad[(soft_bits(v.detach()) == 0) | (soft_bits(v.detach()) == 1)].abs().sum() == 0


def test_log_sqrt2() -> None:
    d = torch.tensor(0.8)
    x = torch.tensor([0.8, 0.8 / math.sqrt(2), 0.4, 0.0, 1e-9, 0.9, math.nan], requires_grad=True)
    y = log_sqrt2_quant(x, d, 4)
    assert y[:3].tolist() == pytest.approx([0.8, 0.8 / math.sqrt(2), 0.4])
    assert y[3:5].tolist() == [0, 0], "levels past the last are zero"
    assert y[5].item() == pytest.approx(0.8)
    assert y[6].isnan()
    y[:6].sum().backward()
    assert x.grad[:6].tolist() == [1, 1, 1, 0, 0, 1]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_forward_is_monotone_and_stays_on_the_grid(bits: int) -> None:
    x = torch.linspace(-10, 10, 4001)
    step, zero = torch.tensor(0.37), torch.tensor(float(2 ** (bits - 1)))
    y = fake_quant(x, step, zero, 0, 2**bits - 1, None)
    assert (y.diff() >= 0).all()
    levels = {((level - zero) * step).item() for level in torch.arange(2.0**bits)}
    assert set(y.tolist()) <= levels


def test_philox_gives_the_published_words() -> None:
    """Known answers of Random123, the authors' library: counter and key of zeros."""
    words = philox(torch.tensor([0]), torch.tensor(0))[0].tolist()
    assert [f"{word:08x}" for word in words] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


def test_series_are_accurate() -> None:
    v = torch.linspace(-20, 20, 10001)
    assert torch.allclose(sigmoid(v).double(), torch.sigmoid(v.double()), rtol=2e-6, atol=0)
    t = torch.linspace(-40, 40, 10001)
    assert torch.allclose(_exp2(t).double(), t.double().exp2(), rtol=5e-7, atol=0)
    x = torch.logspace(-30, 0, 10001)
    assert torch.allclose(_log2(x).double(), x.double().log2(), rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_log_sqrt2_levels_are_those_of_the_logarithm(bits: int) -> None:
    d = torch.tensor(0.9)
    x = torch.cat([torch.logspace(-20, 0, 20001), torch.rand(20001)])
    q = torch.round(-2 * torch.log2(torch.div(x, d).double())).clamp(min=0)
    expected = torch.where(q >= 2**bits, 0, torch.exp2(-q / 2) * 0.9)
    assert torch.allclose(log_sqrt2_quant(x, d, bits).double(), expected, rtol=1e-6, atol=0)


def test_regulariser_to_log() -> None:
    v, beta, lam = torch.linspace(-3, 3, 50), torch.tensor(4.0), torch.tensor(0.7)
    h = (torch.sigmoid(v.double()) * 1.2 - 0.1).clamp(0, 1)
    expected = 0.7 * (1 - (2 * h - 1).abs() ** 4).sum()
    assert rounding_regulariser(v, beta, lam).item() == pytest.approx(expected.item(), rel=1e-5)
