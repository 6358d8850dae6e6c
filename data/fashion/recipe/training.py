"""What the four trainings share: a seeded, resumable loop that survives a kill."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

CHECKPOINT_EVERY = 60.0  # seconds


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 (n, h, w) -> float32 (n, 3, h, w) in [-1, 1]."""
    return (images.float() / 127.5 - 1).unsqueeze(1).expand(-1, 3, -1, -1)


def warmup_cosine(optimizer: torch.optim.Optimizer, steps: int, warmup: int) -> torch.optim.lr_scheduler.LRScheduler:
    first = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup)
    then = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [first, then], [warmup])


def train(
    name: str,
    identity: dict,
    steps: int,
    state: dict[str, torch.nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler],
    step: Callable[[int], torch.Tensor],
) -> None:
    """Call `step(i)`, which returns the loss, for i in range(steps).

    The state is saved every minute under .work/ and picked up by the next run with the same identity.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(os.environ.get("DVC_ROOT", ".")) / ".work" / "recipe" / f"{name}-{key}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    start = 0
    if path.exists():
        saved = torch.load(path, weights_only=False)
        start = saved["step"]
        torch.set_rng_state(saved["rng"])
        for part, value in saved["state"].items():
            state[part].load_state_dict(value)
    began, reported, average = time.monotonic(), time.monotonic(), None
    for i in range(start, steps):
        loss = step(i).item()
        average = loss if average is None else 0.98 * average + 0.02 * loss
        now = time.monotonic()
        if now - reported > CHECKPOINT_EVERY or i + 1 == steps:
            reported = now
            pace = (now - began) / (i + 1 - start)
            print(f"{name} step {i + 1}/{steps} loss {average:.4f} {pace:.2f} s/step", flush=True)
            values = {part: value.state_dict() for part, value in state.items()}
            torch.save({"step": i + 1, "rng": torch.get_rng_state(), "state": values}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
