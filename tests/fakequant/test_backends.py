"""The compiled operators against the reference bit by bit, on the CPU and, where there is one, on a GPU."""

import hashlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings

from pipeline_lib.fakequant import backend, fake_quant, fake_quant_drop, reference_only, soft_round
from pipeline_lib.fakequant.cuda import compile_kernels
from tests.conftest import ROOT
from tests.fakequant.samples import (
    DEVICES,
    DIFFERENTIABLE,
    OPERATORS,
    Sample,
    arguments,
    gradient,
    needs_cuda,
    same_bits,
    samples,
)

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
LARGE = Sample((3, 64, 33, 17), 1, 4, torch.float32, "permuted", 5, special=False)


def forward(operator: str, sample: Sample, device: str) -> torch.Tensor:
    return getattr(torch.ops.mixq, operator)(*arguments(operator, sample, device))


def backward(operator: str, sample: Sample, device: str) -> tuple[torch.Tensor, ...]:
    made = arguments(operator, sample, device)
    grad = gradient(made[0], sample)
    outputs = getattr(torch.ops.mixq, f"{operator}_backward")(grad, *made)
    return outputs if isinstance(outputs, tuple) else (outputs,)


@pytest.mark.parametrize("device", DEVICES)
def test_compiled(device: str) -> None:
    live = backend(device)
    assert live.kind == "compiled", live.reason
    assert len(live.build) == 16


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(sample=samples())
@example(sample=LARGE)
def test_forward_has_the_bits_of_the_reference(device: str, operator: str, sample: Sample) -> None:
    ours = forward(operator, sample, device)
    with reference_only():
        expected = forward(operator, sample, "cpu")
    assert same_bits(ours.cpu(), expected)
    as_fake = torch.empty_like(arguments(operator, sample)[0])  # what `register_fake` promises
    strides = zip(ours.shape, ours.stride(), as_fake.stride(), strict=True)
    assert all(one == other for size, one, other in strides if size > 1 and ours.numel())


@pytest.mark.parametrize("operator", DIFFERENTIABLE)
@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(sample=samples())
@example(sample=LARGE)
def test_gradients_to_values_have_the_bits_of_the_reference(device: str, operator: str, sample: Sample) -> None:
    ours = backward(operator, sample, device)
    with reference_only():
        expected = backward(operator, sample, "cpu")
    assert same_bits(ours[0].cpu(), expected[0])
    for one, other in zip(ours[1:], expected[1:], strict=True):
        assert torch.allclose(one.cpu(), other, rtol=1e-3, atol=1e-3 * max(1, other.numel()), equal_nan=True)


@pytest.mark.parametrize("operator", ["fake_quant", "fake_quant_drop", "soft_round"])
@pytest.mark.parametrize("axis", [None, 0, 1, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_step_gradients_are_accurate_and_repeat(device: str, operator: str, axis: int | None) -> None:
    """Within 1e-5 of a float64 sum of the element gradients, relative to the sum of their magnitudes' root."""
    sample = Sample((16, 48, 20, 24), axis, 4, torch.float32, "contiguous", 3, special=False)
    made = arguments(operator, sample, device)
    grad = gradient(made[0], sample)
    dstep = getattr(torch.ops.mixq, f"{operator}_backward")(grad, *made)[1]
    assert torch.equal(dstep, getattr(torch.ops.mixq, f"{operator}_backward")(grad, *made)[1])
    channel = {"fake_quant": axis, "fake_quant_drop": None, "soft_round": 0}[operator]
    exact = element_gradients(operator, grad.cpu(), [a.cpu() if isinstance(a, torch.Tensor) else a for a in made])
    rest = [d for d in range(4) if d != channel]
    exact_sum, size = exact.sum(rest), exact.square().sum(rest).sqrt()
    assert ((dstep.cpu() - exact_sum).abs() / torch.maximum(exact_sum.abs(), size)).max() < 1e-5


def element_gradients(operator: str, grad: torch.Tensor, made: list[object]) -> torch.Tensor:
    """d output / d step * grad of each element, float64."""
    from pipeline_lib.fakequant import reference

    if operator == "soft_round":
        v, base, step, zero, qmin, qmax = made[:6]
        level = reference.soft_bits(v) + base + zero.view(-1, 1, 1, 1)
        return (level.clamp(qmin, qmax) - zero.view(-1, 1, 1, 1)).double() * grad
    x, step, zero, qmin, qmax = made[:5]
    _, by_step = reference._straight_through(x, step, zero, qmin, qmax, made[5] if operator == "fake_quant" else None)
    keep = reference.keep_mask(x, made[5], made[6]) if operator == "fake_quant_drop" else 1
    return by_step.double() * grad * keep


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append([backward(operator, LARGE, "cpu") for operator in DIFFERENTIABLE])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device: str, operator: str) -> None:
    for layout, axis in (("contiguous", None), ("permuted", 0), ("sliced", 1)):
        sample = Sample((4, 3, 2, 5), axis, 4, torch.float32, layout, 1, special=False)
        made = arguments(operator, sample, device)
        if operator in DIFFERENTIABLE:
            made = [a.requires_grad_() if i in (0, 1, 2) and is_leaf(operator, i, a) else a for i, a in enumerate(made)]
        torch.library.opcheck(getattr(torch.ops.mixq, operator).default, tuple(made))


def is_leaf(operator: str, position: int, value: object) -> bool:
    """The values, and the step: what has a gradient."""
    has = {"fake_quant": (0, 1), "fake_quant_drop": (0, 1), "soft_round": (0, 2), "log_sqrt2_quant": (0,)}[operator]
    return position in has and isinstance(value, torch.Tensor)


def test_without_a_compiler_the_reference_runs_and_says_so(tmp_path: Path) -> None:
    script = """
import torch
from pipeline_lib.fakequant import backend, fake_quant
one = torch.tensor(1.0)
for _ in range(2):
    assert fake_quant(torch.tensor([0.6]), one, one * 0, 0, 3, None).item() == 1
print(backend("cpu"))
"""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "CXX": "no-such-compiler", "PATH": "/usr/bin:/bin"}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("reference: no C++ compiler 'no-such-compiler'")
    assert result.stderr.count("no compiled fake-quant operators on CPU") == 1


def test_processes_that_build_at_once_share_one_build(tmp_path: Path) -> None:
    script = "from pipeline_lib.fakequant import backend; print(backend('cpu'))"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", script]
    running = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    lines = {process.communicate()[0] for process in running}
    assert len(lines) == 1
    assert lines.pop().startswith("compiled, build ")
    assert len(list(tmp_path.rglob("*.so"))) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_compiles_without_a_gpu(architecture: str) -> None:
    cubin = compile_kernels(architecture)
    assert cubin[:4] == b"\x7fELF"
    for operator in ("fake_quant", "fake_quant_short", "fake_quant_drop", "mix", "log_sqrt2_quant"):
        for dtype in ("float32", "float16", "bfloat16"):
            assert f".text.{operator}_{dtype}\0".encode() in cubin
    for dtype in ("int8", "int16"):
        assert f".text.soft_round_backward_{dtype}\0".encode() in cubin


@needs_cuda
def test_a_captured_graph_replays_with_new_randomness() -> None:
    x, step = torch.randn(1 << 16, device="cuda"), torch.tensor(0.1, device="cuda")
    zero, seed = torch.tensor(3.0, device="cuda"), torch.tensor(1, device="cuda")
    fake_quant_drop(x, step, zero, 0, 7, 0.5, seed)  # compiles and loads
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = fake_quant_drop(x, step, zero, 0, 7, 0.5, seed)
        dx, dstep = torch.ops.mixq.fake_quant_drop_backward(y, x, step, zero, 0, 7, 0.5, seed)
    for value in (1, 2):
        seed.fill_(value)
        graph.replay()
        again = fake_quant_drop(x, step, zero, 0, 7, 0.5, seed)
        assert torch.equal(y, again)
        expected = torch.ops.mixq.fake_quant_drop_backward(again, x, step, zero, 0, 7, 0.5, seed)
        assert torch.equal(dx, expected[0]) and torch.equal(dstep, expected[1])


@needs_cuda
def test_work_goes_to_the_current_stream_and_to_the_tensor_s_device() -> None:
    stream = torch.cuda.Stream()
    step, zero = torch.tensor(0.1, device="cuda"), torch.tensor(3.0, device="cuda")
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        x = torch.randn(1 << 20, device="cuda")
        y = fake_quant(x, step, zero, 0, 7, None)
    stream.synchronize()
    assert torch.equal(y, fake_quant(x, step, zero, 0, 7, None))
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    moved = fake_quant(x.to(last), step.to(last), zero.to(last), 0, 7, None)
    assert moved.device == last and torch.equal(moved.to("cuda"), y)


@needs_cuda
def test_more_elements_than_32_bits_count() -> None:
    n = 2**31 + 5
    x = torch.zeros(n, dtype=torch.float16, device="cuda")
    x[-3:] = 1
    y = fake_quant(x, torch.tensor(0.75, device="cuda"), torch.tensor(0.0, device="cuda"), 0, 3, None)
    assert y[-3:].tolist() == [0.75] * 3
    assert y.sum(dtype=torch.float32).item() == 2.25


@needs_cuda
def test_a_bad_step_on_a_gpu_gives_nan() -> None:
    for bad in (0.0, -1.0, torch.nan, torch.inf):
        step = torch.tensor(bad, device="cuda")
        assert fake_quant(torch.ones(9, device="cuda"), step, step * 0, 0, 3, None).isnan().all()


@needs_cuda
def test_tensors_on_two_devices_are_refused() -> None:
    x, one = torch.ones(3), torch.tensor(1.0)
    with pytest.raises(ValueError, match="step: expected on cpu"):
        fake_quant(x, one.cuda(), one, 0, 3, None)
    with pytest.raises(ValueError, match="step: expected on cuda"):
        fake_quant(x.cuda(), one, one.cuda(), 0, 3, None)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("x", {"x": torch.ones(2, 3, dtype=torch.float64)}),
        ("x", {"x": torch.ones(2, 3, dtype=torch.int32)}),
        ("axis", {"axis": 2}),
        ("axis", {"axis": -1}),
        ("step", {"step": torch.ones(3)}),
        ("step", {"step": torch.ones(2, dtype=torch.float64)}),
        ("step", {"step": torch.tensor([1.0, 0.0])}),
        ("step", {"step": torch.tensor([1.0, -1.0])}),
        ("step", {"step": torch.tensor([1.0, torch.nan])}),
        ("step", {"step": torch.tensor([1.0, torch.inf])}),
        ("zero_point", {"zero_point": torch.zeros(())}),
        ("zero_point", {"zero_point": torch.zeros(2, dtype=torch.int32)}),
        ("qmin", {"qmin": 4}),
        ("qmin", {"qmax": 2**15}),
    ],
)
def test_bad_arguments_are_named(argument: str, change: dict[str, object]) -> None:
    good = {"x": torch.ones(2, 3), "step": torch.ones(2), "zero_point": torch.zeros(2), "qmin": 0, "qmax": 3, "axis": 0}
    fake_quant(*good.values())
    with pytest.raises((ValueError, RuntimeError), match=argument):
        fake_quant(*(good | change).values())


def test_bad_arguments_of_the_other_operators_are_named() -> None:
    x, one, zero, seed = torch.ones(2, 3), torch.tensor(1.0), torch.tensor(0.0), torch.tensor(1)
    with pytest.raises(ValueError, match="p:"):
        fake_quant_drop(x, one, zero, 0, 3, 1.5, seed)
    with pytest.raises(ValueError, match="seed:"):
        fake_quant_drop(x, one, zero, 0, 3, 0.5, one)
    with pytest.raises(ValueError, match="y:"):
        torch.ops.mixq.mix(x, x.half(), 0.5, seed)
    with pytest.raises(ValueError, match="bits:"):
        torch.ops.mixq.log_sqrt2_quant(x, one, 9)
    with pytest.raises(ValueError, match="d:"):
        torch.ops.mixq.log_sqrt2_quant(x, zero, 4)
    steps, zeros, base = torch.ones(2), torch.zeros(2), torch.zeros(2, 3, dtype=torch.int8)
    with pytest.raises(ValueError, match="v:"):
        soft_round(x.half(), base, steps, zeros, 0, 3, one, zero)
    with pytest.raises(ValueError, match="base:"):
        soft_round(x, base.long(), steps, zeros, 0, 3, one, zero)
    with pytest.raises(ValueError, match="beta:"):
        soft_round(x, base, steps, zeros, 0, 3, steps, zero)
    with pytest.raises(ValueError, match="grad:"):
        torch.ops.mixq.fake_quant_backward(x.half(), x, one, zero, 0, 3, None)


@pytest.mark.parametrize("which", ["operators", "mixup-class-prompts", "*.so"])
def test_operators_that_others_can_write_are_not_loaded(tmp_path: Path, which: str) -> None:
    script = "from pipeline_lib.fakequant import backend, build; print(backend('cpu')); print(build.loaded)"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    (library,) = tmp_path.rglob("*.so")
    folders = library.parent, library.parent.parent
    assert [stat.S_IMODE(path.stat().st_mode) for path in (library, *folders)] == [0o600, 0o700, 0o700]
    assert run().stdout.splitlines()[1] == str({"cpu": hashlib.sha256(library.read_bytes()).hexdigest()})
    path = next(tmp_path.rglob(which))
    path.chmod(path.stat().st_mode | stat.S_IWGRP)
    refused = run()
    assert refused.returncode != 0
    assert f"InputError: {path}: compiled operators are taken from files and folders that only you" in refused.stderr
    assert f"`rm -r {path}`" in refused.stderr
