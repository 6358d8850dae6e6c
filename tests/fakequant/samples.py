"""Arguments for every operator: shapes, layouts and dtypes as networks have them, and awkward ones."""

import math
import os
from dataclasses import dataclass

import pytest
import torch
from hypothesis import strategies as st

# Without a GPU these are skipped, unless FAIL_WITHOUT_CUDA=1: a run on a GPU machine cannot go falsely green.
needs_cuda = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("FAIL_WITHOUT_CUDA") != "1", reason="no CUDA device"
)
DEVICES = ["cpu", pytest.param("cuda", marks=needs_cuda)]

OPERATORS = ("fake_quant", "fake_quant_drop", "mix", "soft_round", "log_sqrt2_quant")
DIFFERENTIABLE = ("fake_quant", "fake_quant_drop", "soft_round", "log_sqrt2_quant")
LAYOUTS = ("contiguous", "permuted", "sliced", "expanded")


@dataclass(frozen=True)
class Sample:
    """What to make arguments of."""

    shape: tuple[int, ...]
    axis: int | None
    bits: int
    dtype: torch.dtype
    layout: str
    seed: int
    special: bool  # infinities, NaN and ties among the values


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    if draw(st.booleans()):
        shape = (*shape[:-1], draw(st.sampled_from([0, 31, 128, 700, 2049])))
    axis = draw(st.sampled_from([None, *range(len(shape))]))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    bits, seed = draw(st.integers(2, 8)), draw(st.integers(0, 10**6))
    return Sample(shape, axis, bits, dtype, draw(st.sampled_from(LAYOUTS)), seed, draw(st.booleans()))


def lay_out(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same shape in another memory layout; `expanded` also repeats the first row."""
    if layout == "permuted":
        return x.movedim(0, -1).contiguous().movedim(-1, 0)
    if layout == "sliced":
        return torch.stack([x, x], -1)[..., 0]
    if layout == "expanded":
        return x[:1].expand(x.shape)
    return x


def arguments(operator: str, sample: Sample, device: str = "cpu") -> list[object]:
    """Arguments of an operator; always the same for the same sample."""
    g = torch.Generator().manual_seed(sample.seed)

    def values(dtype: torch.dtype = sample.dtype) -> torch.Tensor:
        x = torch.randn(sample.shape, generator=g) * 2
        if sample.special and x.numel():
            special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 0.25, 1e-40, 3e38])
            at = torch.randint(x.numel(), (8,), generator=g)
            x.view(-1)[at] = special
        return lay_out(x.to(dtype), sample.layout)

    axis = 0 if operator == "soft_round" else sample.axis
    channels = () if axis is None or operator == "fake_quant_drop" else (sample.shape[axis],)
    step = (torch.rand(channels, generator=g) + 0.1) * 0.5
    zero = torch.randint(0, 2**sample.bits, channels, generator=g).float()
    grid = [step, zero, 0, 2**sample.bits - 1]
    seed = torch.tensor(sample.seed * 2**40 - 7)
    if operator == "fake_quant":
        made = [values(), *grid, axis]
    elif operator == "fake_quant_drop":
        made = [values(), *grid, 0.5, seed]
    elif operator == "mix":
        made = [values(), values(), 0.3, seed]
    elif operator == "soft_round":
        kind = torch.int8 if sample.bits < 8 else torch.int16
        base = torch.randint(-5, 5, sample.shape, generator=g).to(kind)
        made = [values(torch.float32), base, *grid, torch.tensor(5.5), torch.tensor(0.2)]
    else:
        made = [values().abs(), torch.tensor(0.9), sample.bits]
    return [a.to(device) if isinstance(a, torch.Tensor) else a for a in made]


def gradient(output: torch.Tensor, sample: Sample) -> torch.Tensor:
    g = torch.Generator().manual_seed(sample.seed + 1)
    return lay_out(torch.randn(output.shape, generator=g).to(output.dtype), sample.layout).to(output.device)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, NaN being equal to NaN."""
    return a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
