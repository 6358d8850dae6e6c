"""From prompts to shards: plan, seeds and packing, which are exact, and rendered pixels, which are nearly so."""

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline_lib.artifacts.shards import Sample, pack_shard, read_shard
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.plan import plan_shards
from pipeline_lib.synthesis.worker import make_worker
from tests.golden.digests import digest

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("a photo of a sneaker", "a photo of a coat and a dress", "a photo of a bag", "a photo of a shirt and a bag")
ROWS = [
    {"key": f"golden-{number:06d}", "prompt": prompt, "negative_prompt": "", "weights": [1.0]}
    for number, prompt in enumerate(PROMPTS)
]
PARAMS = Synthesize(
    seed=0,
    scheduler="default",
    steps=12,
    guidance_scale=2.0,
    image_size=32,
    dtype="float32",
    batch_size=64,
    shard_size=128,
    blank_deviation=2.0,
    safety_checker=False,
    compile=False,
    max_bad_fraction=0.05,
)


def compute() -> dict[str, Any]:
    """What is exact, by name; each default of the section by its own, for a new one changes no identity."""
    plan = list(plan_shards(({"key": f"golden-{number:06d}"} for number in range(24)), shard_size=7, seed=3))
    ramps = (np.arange(3 * 8 * 8 * 3).reshape(3, 8, 8, 3) % 256).astype(np.uint8)
    packed = unpack(pack_shard((Image.fromarray(ramp), row) for ramp, row in zip(ramps, ROWS, strict=False)))
    defaults = {
        f"default of {name}": field.get_default(call_default_factory=True)
        for name, field in Synthesize.model_fields.items()
        if not field.is_required()
    }
    return {
        "plan": digest([[shard.key, [sample["key"] for sample in shard.samples]] for shard in plan]),
        "seeds": digest([sample["seed"] for shard in plan for sample in shard.samples]),
        "packed pixels": digest([hashlib.sha256(sample.image.tobytes()).hexdigest() for sample in packed]),
        "packed records": digest([{**sample.record, "png_sha256": None} for sample in packed]),
        "fields of a rendered sample": list(rendered()[0].record),
        **defaults,
    }


@cache
def rendered() -> list[Sample]:
    """Four images of the shipped generator with the parameters of the default preset."""
    (shard,) = plan_shards(ROWS, PARAMS.shard_size, PARAMS.seed)
    return unpack(make_worker(ROOT / "data/fashion/generator", PARAMS, torch.device("cpu"))(shard).content)


def pixels() -> np.ndarray:
    """uint8 (height, 4 * width, 3)."""
    return np.hstack([np.asarray(sample.image) for sample in rendered()])


def unpack(tar: bytes) -> list[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "000000.tar"
        path.write_bytes(tar)
        return list(read_shard(path))
