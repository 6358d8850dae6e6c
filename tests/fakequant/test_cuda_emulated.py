"""The CUDA kernels and the code that launches them, on CPU threads, against the reference bit by bit."""

import ctypes
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline_lib.fakequant import cuda, reference
from pipeline_lib.fakequant.arguments import checked
from pipeline_lib.fakequant.build import KERNEL_CODE
from tests.fakequant.samples import DIFFERENTIABLE, OPERATORS, Sample, arguments, gradient, same_bits

SHAPES = [  # shape, axis
    ((7, 5, 13, 3), None),
    ((1, 5000), None),
    ((3, 700), 0),
    ((4, 3, 20, 10), 1),
    ((4, 3, 2, 2), 1),
    ((9, 6), 1),
    ((2, 3, 128), 1),
]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("emulator") / "emulator.so"
    flags = ["-std=c++20", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", f"-I{KERNEL_CODE}"]
    subprocess.run(["c++", *flags, Path(__file__).parent / "emulated_cuda.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(autouse=True)
def launched_on_the_cpu(emulator: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(name: str, kind: torch.dtype | None, grid: tuple[int, ...], warps: int, *values: Any) -> None:
        symbol = name if kind is None else f"{name}_{str(kind).removeprefix('torch.')}"
        words = [v.data_ptr() if isinstance(v, torch.Tensor) else int(v) for v in values]
        kernel = ctypes.cast(getattr(emulator, symbol), ctypes.c_void_p)
        columns, rows = (*grid, 1)[:2]
        emulator.emulate(kernel, columns, rows, cuda.WARP * warps, (ctypes.c_longlong * 16)(*words))

    monkeypatch.setattr(cuda, "_launch", launch)
    # Few threads, so that each takes several tiles and each block several runs.
    for name, few in (("WARPS", 2), ("BLOCKS", 3), ("RUNS", 2)):
        monkeypatch.setattr(cuda, name, few)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(
    ("shape", "axis", "dtype"),
    [(*case, torch.float32) for case in SHAPES]
    + [(*case, dtype) for case in SHAPES[:1] + SHAPES[3:4] for dtype in (torch.float16, torch.bfloat16)],
)
def test_kernels_have_the_bits_of_the_reference(
    operator: str, shape: tuple[int, ...], axis: int | None, dtype: torch.dtype
) -> None:
    sample = Sample(shape, axis, 4, dtype, "contiguous", 11, special=True)
    made = checked(operator, *arguments(operator, sample))
    assert same_bits(getattr(cuda, operator)(*made), getattr(reference, operator)(*made))
    if operator not in DIFFERENTIABLE:
        return
    sample = Sample(shape, axis, 4, dtype, "contiguous", 12, special=False)
    made = arguments(operator, sample)
    made = checked(f"{operator}_backward", gradient(made[0], sample), *made)
    ours, expected = (getattr(module, f"{operator}_backward")(*made) for module in (cuda, reference))
    for one, other in zip(*((o if isinstance(o, tuple) else (o,)) for o in (ours, expected)), strict=True):
        assert same_bits(one, other)


@pytest.mark.parametrize("bad", [0.0, -1.0, torch.nan, torch.inf])
def test_a_bad_step_gives_nan(bad: float) -> None:
    step = torch.tensor(bad)
    assert cuda.fake_quant(torch.ones(9), step, torch.zeros(()), 0, 3, None).isnan().all()
