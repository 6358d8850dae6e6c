"""The time of the fake-quant operators, and of everything else that computes the same."""

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

SECONDS = 0.5  # that a measurement takes at least
SHAPES: dict[str, list[tuple[int, ...]]] = {  # by device
    "cpu": [(32, 64, 32, 32), (256, 256, 3, 3)],
    "cuda": [(32, 64, 32, 32), (256, 256, 3, 3), (64, 1024, 32, 32)],
}


@dataclass(frozen=True)
class Case:
    """One operator on one shape. Its arguments are `variables`, then `constants`."""

    operator: str
    variables: list[Any]  # tensors; those of floating point get a gradient
    constants: list[Any]
    bytes_moved: tuple[int, int]  # by a fused forward, and by forward and backward

    @property
    def title(self) -> str:
        """Operator and shape."""
        return f"{self.operator} {'x'.join(map(str, self.variables[0].shape))}"

    @property
    def granularity(self) -> str:
        """Whether each channel has its step."""
        return "per channel" if self.variables[-1].dim() == 1 else "per tensor"


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
    arguments = [*case.variables, *case.constants]
    grad = torch.randn_like(case.variables[0])

    def with_autograd(function: Callable[..., Any]) -> Callable[[], Any]:
        variables = [a.clone().requires_grad_() if a.dtype.is_floating_point else a for a in case.variables]
        inputs = [v for v in variables if v.requires_grad]

        def forward_and_backward() -> None:
            outputs = function(*variables, *case.constants)
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            grads = (grad, *(torch.ones_like(o) for o in outputs[1:]))
            torch.autograd.grad(outputs, inputs, grads, allow_unused=True)

        return forward_and_backward

    def without_autograd(function: Callable[..., Any]) -> Callable[[], Any]:
        def forward() -> None:
            with torch.no_grad():
                function(*arguments)

        return forward

    chain = getattr(eager, case.operator)
    yield "eager chain", without_autograd(chain), with_autograd(chain)

    forward: Callable[..., Any] = torch.compile(getattr(reference, case.operator), dynamic=False)
    backward: Callable[..., Any] = torch.compile(getattr(reference, f"{case.operator}_backward"), dynamic=False)

    def compiled() -> None:
        with torch.no_grad():
            forward(*arguments)
            backward(grad, *arguments)

    yield "torch.compile of the reference", without_autograd(forward), compiled
    if case.operator == "fake_quant":
        own = pytorch_fake_quantize(case)
        yield "torch.fake_quantize (no step gradient)", without_autograd(own), with_autograd(own)
    ours = getattr(operators, case.operator)
    yield "ours", without_autograd(ours), with_autograd(ours)


def pytorch_fake_quantize(case: Case) -> Callable[..., Tensor]:
    """PyTorch's operator on the same grid; it gives no gradient to the step."""
    step = case.variables[1]
    zero, qmin, qmax, axis = case.constants
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
    """Bytes a second that a copy of this tensor within the device reads and writes."""
    target = torch.empty_like(like)
    return 2 * like.numel() * like.element_size() / (milliseconds(lambda: target.copy_(like)) / 1e3)


def compare_operators(device: torch.device) -> pd.DataFrame:
    """A row for each case, pass and variant; shares and ratios compare measurements of this run."""
    todo = list(cases(device))
    rows: list[dict[str, Any]] = []
    with ProgressBar("bench fakequant", len(todo)) as bar:
        for case in todo:
            bandwidth = copy_bandwidth(case.variables[0])
            eager_ms: dict[str, float] = {}  # by pass; the eager chain is the first variant
            for variant, forward, forward_and_backward in variants(case):
                functions = {"forward": forward, "forward + backward": forward_and_backward}
                for (name, function), moved in zip(functions.items(), case.bytes_moved, strict=True):
                    took = milliseconds(function)
                    eager_ms.setdefault(name, took)
                    rows.append(
                        {
                            "case": case.title,
                            "granularity": case.granularity,
                            "pass": name,
                            "variant": variant,
                            "ms": took,
                            "megabytes": moved / 1e6,
                            "share_of_copy_bandwidth": moved / (took / 1e3) / bandwidth,
                            "times_eager": eager_ms[name] / took,
                        }
                    )
            bar.advance(1, case.title)
    return pd.DataFrame(rows)
