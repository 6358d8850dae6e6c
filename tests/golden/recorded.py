"""What was computed when a version was recorded, and whether the same is computed now."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.quantization import quantize
from pipeline_lib.synthesis import version
from tests.golden import prompts, reconstruction, synthesis

FOLDER = Path(__file__).parent
# Mean absolute difference of pixels, 0 to 255. Batches of one give 0.0001, 13 steps instead of 12 give 0.25, another
# seed 37 (one build of torch on one processor); other builds and processors may add to the first.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Exact:
    """Values that are the same everywhere, recorded as NAME-VERSION.json."""

    name: str
    version: int
    stated_in: str  # module that has the version
    compute: Callable[[], dict[str, Any]]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.name}-{self.version}.json"

    def problem(self) -> str:
        """What to do about values that are not as they were recorded; empty if all are."""
        recorded, computed = read_json(self.path) if self.path.exists() else {}, self.compute()
        if other := [key for key in recorded if computed.get(key) != recorded[key]]:
            return changed(self, ", ".join(other))
        if new := [key for key in computed if key not in recorded]:
            return f"{self.path.name} lacks {', '.join(new)}: `python -m tests.golden` records it"
        return ""


def changed(exact: Exact, what: str) -> str:
    return (
        f"{exact.name}: {what} differ from those recorded of version {exact.version}; if that is meant, raise VERSION "
        f"in {exact.stated_in} and record it with `python -m tests.golden`"
    )


PROMPTS = Exact("prompts", prompts.VERSION, "tests/golden/prompts.py", prompts.compute)
SYNTHESIS = Exact("synthesis", version.VERSION, "pipeline_lib/synthesis/version.py", synthesis.compute)
RECONSTRUCTION = Exact(
    "reconstruction", quantize.VERSION, "pipeline_lib/quantization/quantize.py", reconstruction.compute
)
EXACT = (PROMPTS, SYNTHESIS, RECONSTRUCTION)
PIXELS = SYNTHESIS.path.with_suffix(".png")
LOSSES = RECONSTRUCTION.path.with_name(f"learned-{RECONSTRUCTION.version}.json")
# Relative, of a unit's losses. Kernels of AVX2 in place of AVX-512 give up to 0.006, two threads in place of one 0.002
# (one build of torch on one processor); a rate of the roundings that is a tenth higher gives up to 0.05.
LOSS_TOLERANCE = 0.015


def pixels_problem() -> str:
    """As `Exact.problem`, of the rendered images within TOLERANCE."""
    if not PIXELS.exists():
        return f"there is no {PIXELS.name}: `python -m tests.golden` records it"
    recorded, computed = np.asarray(Image.open(PIXELS)).astype(int), synthesis.pixels()
    difference = np.abs(recorded - computed).mean() if recorded.shape == computed.shape else np.inf
    return changed(SYNTHESIS, f"rendered pixels ({difference:.3f} away)") if difference > TOLERANCE else ""


def losses_problem() -> str:
    """As `Exact.problem`, of losses before and after reconstruction within LOSS_TOLERANCE."""
    if not LOSSES.exists():
        return f"there is no {LOSSES.name}: `python -m tests.golden` records it"
    recorded, computed = read_json(LOSSES), reconstruction.losses()
    if recorded.keys() != computed.keys():
        return changed(RECONSTRUCTION, "units")
    far = [name for name, values in recorded.items() if not np.allclose(computed[name], values, rtol=LOSS_TOLERANCE)]
    return changed(RECONSTRUCTION, f"losses of {', '.join(far)}") if far else ""


def record() -> None:
    """Record what is new. What a version has stays: a value that changed takes a new version.

    Raises:
        SystemExit: a value has changed.
    """
    for exact in EXACT:
        recorded, computed = read_json(exact.path) if exact.path.exists() else {}, exact.compute()
        if any(computed.get(key) != value for key, value in recorded.items()):
            raise SystemExit(exact.problem())
        write_json(exact.path, computed)
    if not PIXELS.exists():
        Image.fromarray(synthesis.pixels()).save(PIXELS)
    if not LOSSES.exists():
        write_json(LOSSES, reconstruction.losses())
    if problem := pixels_problem() or losses_problem():
        raise SystemExit(problem)
