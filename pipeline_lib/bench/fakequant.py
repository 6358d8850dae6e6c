"""The fake-quant operators against what else computes the same."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from pipeline_lib.bench import eager
from pipeline_lib.fakequant import operators, reference
from pipeline_lib.progress import ProgressBar

SECONDS = 0.5  # a measurement
SHAPES: dict[str, list[tuple[int, ...]]] = {  # by device
    "cpu": [(32, 64, 32, 32), (256, 256, 3, 3)],
    "cuda": [(32, 64, 32, 32), (256, 256, 3, 3), (64, 1024, 32, 32)],
}


@dataclass(frozen=True)
class Case:
    """One operator on one shape; `bytes` are those of a fused forward, and of forward and backward."""

    operator: str
    values: list[Any]
    others: list[Any]
    bytes: tuple[int, int]

    @property
    def title(self) -> str:
        """Operator and shape."""
        return f"{self.operator} {'x'.join(map(str, self.values[0].shape))}"

    @property
    def granularity(self) -> str:
        """Whether each channel has its step."""
        return "per channel" if self.values[-1].dim() == 1 else "per tensor"


def cases(device: torch.device) -> Iterator[Case]:
    """Every operator on activations or weights of the usual sizes."""
    for shape in SHAPES[device.type]:
        x = torch.randn(shape, device=device)
        n, channels = x.numel(), shape[0]
        step, zero = torch.tensor(0.1, device=device), torch.tensor(3.0, device=device)
        seed = torch.tensor(7, device=device)
        steps, zeros = step.expand(channels).clone(), zero.expand(channels).clone()
        beta, lam = torch.tensor(5.0, device=device), torch.tensor(0.1, device=device)
        yield Case("fake_quant", [x, step], [zero, 0, 15, None], (8 * n, 20 * n))
        yield Case("fake_quant", [x, steps], [zeros, 0, 15, 0], (8 * n, 20 * n))
        yield Case("fake_quant_drop", [x, step], [zero, 0, 15, 0.5, seed], (8 * n, 20 * n))
        if shape[2:] == (3, 3) or device.type == "cuda":
            base = torch.randint(-4, 4, shape, device=device, dtype=torch.int8)
            yield Case("soft_round", [x, base, steps], [zeros, 0, 15, beta, lam], (9 * n, 22 * n))
        if shape[2:] != (3, 3):
            weights = x.softmax(-1)
            yield Case("log_sqrt2_quant", [weights], [weights.max(), 4], (8 * n, 20 * n))


def variants(case: Case) -> Iterator[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    """Name, forward, and forward and backward, of everything that computes the case."""
    arguments = [*case.values, *case.others]
    grad = torch.randn_like(case.values[0])

    def with_autograd(function: Callable[..., Any]) -> Callable[[], Any]:
        variables = [a.clone().requires_grad_() if a.dtype.is_floating_point else a for a in case.values]
        inputs = [v for v in variables if v.requires_grad]

        def both() -> None:
            outputs = function(*variables, *case.others)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            grads = (grad, *(torch.ones_like(o) for o in outputs[1:]))
            torch.autograd.grad(outputs, inputs, grads, allow_unused=True)

        return both

    def without(function: Callable[..., Any]) -> Callable[[], Any]:
        def forward() -> None:
            with torch.no_grad():
                function(*arguments)

        return forward

    chain = getattr(eager, case.operator)
    yield "eager chain", without(chain), with_autograd(chain)

    forward: Callable[..., Any] = torch.compile(getattr(reference, case.operator), dynamic=False)
    backward: Callable[..., Any] = torch.compile(getattr(reference, f"{case.operator}_backward"), dynamic=False)

    def compiled() -> None:
        with torch.no_grad():
            forward(*arguments)
            backward(grad, *arguments)

    yield "torch.compile of the reference", without(forward), compiled
    if case.operator == "fake_quant":
        own = pytorch_fake_quantize(case)
        yield "torch.fake_quantize (no step gradient)", without(own), with_autograd(own)
    ours = getattr(operators, case.operator)
    yield "ours", without(ours), with_autograd(ours)


def pytorch_fake_quantize(case: Case) -> Callable[..., Tensor]:
    """PyTorch's operator on the same grid; it gives no gradient to the step."""
    step = case.values[1]
    zero, qmin, qmax, axis = case.others
    if axis is None:
        scale, offset = float(step), int(zero)
        return lambda x, *_: torch.fake_quantize_per_tensor_affine(x, scale, offset, qmin, qmax)
    offsets = zero.int()
    return lambda x, s, *_: torch.fake_quantize_per_channel_affine(x, s.detach(), offsets, axis, qmin, qmax)


def milliseconds(function: Callable[[], Any]) -> float:
    """Median time of a call, with torch's own number of threads."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    function()
    return 1e3 * float(timer.blocked_autorange(min_run_time=SECONDS).median)


def copy_bandwidth(like: Tensor) -> float:
    """Bytes a second of a copy within the device, read and written."""
    target = torch.empty_like(like)
    return 2 * like.numel() * like.element_size() / (milliseconds(lambda: target.copy_(like)) / 1e3)


def compare_operators(device: torch.device) -> pd.DataFrame:
    """A row a case, pass and variant; shares and ratios are of the same run."""
    todo = list(cases(device))
    rows: list[dict[str, Any]] = []
    with ProgressBar("bench fakequant", len(todo)) as bar:
        for case in todo:
            bandwidth = copy_bandwidth(case.values[0])
            first: dict[str, float] = {}
            for variant, forward, both in variants(case):
                for name, function, moved in zip(
                    ("forward", "forward + backward"), (forward, both), case.bytes, strict=True
                ):
                    took = milliseconds(function)
                    rows.append(
                        {
                            "case": case.title,
                            "granularity": case.granularity,
                            "pass": name,
                            "variant": variant,
                            "ms": took,
                            "megabytes": moved / 1e6,
                            "share_of_copy_bandwidth": moved / (took / 1e3) / bandwidth,
                            "times_eager": first.setdefault(name, took) / took,
                        }
                    )
            bar.advance(1, case.title)
    return pd.DataFrame(rows)
