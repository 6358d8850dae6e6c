"""A hundred thousand samples: all but the rendering takes seconds, and memory does not grow with them."""

import contextlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import write_json, write_lines
from pipeline_lib.artifacts.shards import pack_shard
from pipeline_lib.execution.tasks import Result
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis import synthesize
from pipeline_lib.synthesis.plan import Shard
from pipeline_lib.synthesis.synthesize import Synthesis

FORKS = multiprocessing.get_context("forkserver")


def make_worker(generator: Path, params: Synthesize, device: torch.device) -> object:
    """Eight by eight pixels of noise instead of a diffusion model; all around it is real."""

    def render(shard: Shard) -> Result:
        if shard.number == int(os.environ.get("STOP_AT", "-1")):
            raise KeyboardInterrupt
        samples = []
        for sample in shard.samples:
            pixels = np.random.default_rng(sample["seed"]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            digest = f"{sample['seed']:064x}"
            found = {"pixel_deviation": 50.0, "pixel_sha256": digest, "defect": ""}
            samples.append((Image.fromarray(pixels), {**sample, **found}))
        return Result(pack_shard(samples), {"device": "cpu", "seconds": 0.0, "packing_seconds": 0.0})

    return render


def drive(folder: Path, images: int, figures: "multiprocessing.SimpleQueue[dict[str, float]]") -> None:
    os.chdir(folder)
    synthesize.make_worker = make_worker
    row = {"prompt": "a photo of a sneaker and a bag", "negative_prompt": "", "classes": [7, 8], "weights": [0.5, 0.5]}
    write_lines(Path("prompts.jsonl"), ({"key": f"mixup-{i:06d}", **row} for i in range(images)))
    params = read(Synthesize, "synthesize").model_copy(update={"shard_size": 128})
    runtime = read(Runtime, "runtime").model_copy(update={"device": "cpu", "workers": 1})
    out, code = f"out-{images}", Path("pipeline_lib/code.py")
    code.parent.mkdir(exist_ok=True)
    code.touch()

    def made() -> Synthesis:
        return Synthesis(out, Path("prompts.jsonl"), Path("world/generator"), params, runtime)

    began = time.monotonic()
    planned = sum(len(shard.samples) for shard in made().plan())
    took = {"planning": time.monotonic() - began}
    assert planned == images
    os.environ["STOP_AT"] = str(images // 128)  # the last shard
    with contextlib.suppress(KeyboardInterrupt):
        made().run(Path(out))
    del os.environ["STOP_AT"]
    began = time.monotonic()
    facts = made().run(Path(out))
    took["resuming and indexing"] = time.monotonic() - began
    assert facts["images_rendered_in_this_run"] == images % 128
    commit_to_dvc(out, facts)

    def again() -> float:
        """As after an edit of code, seconds."""
        code.write_text(code.read_text() + "# an edit\n")
        shutil.rmtree(out)
        began = time.monotonic()
        assert made().run(Path(out))["images_rendered_in_this_run"] == 0
        return time.monotonic() - began

    took["finished work, again"] = again()
    shutil.rmtree(".work")
    took["DVC's cache, again"] = again()
    figures.put({**took, "peak_memory_mib": peak_memory.whole()})


def commit_to_dvc(out: str, facts: dict[str, Any]) -> None:
    """Let DVC take the dataset into its cache and into dvc.lock, as after a run of the stage."""
    record = f"data/provenance/synthesize/{out}.json"
    write_json(Path(record), facts)
    stage = {"matrix": {"recipe": [out]}, "cmd": "true", "deps": ["pipeline_lib/code.py"], "outs": [out, record]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"synthesize": stage}}))
    for command in (["init", "-q", "--no-scm", "-f"], ["commit", "-q", "-f"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)


def measure(folder: Path, images: int) -> dict[str, float]:
    figures = FORKS.SimpleQueue()
    process = FORKS.Process(target=drive, args=(folder, images, figures))
    process.start()
    process.join()
    assert process.exitcode == 0
    return figures.get()


@pytest.mark.slow
def test_a_hundred_thousand_samples(workspace: Path) -> None:
    small, large = measure(workspace, 10_000), measure(workspace, 100_000)
    print(f"\n10,000 samples: {small}\n100,000 samples: {large}")
    assert large["peak_memory_mib"] - small["peak_memory_mib"] < 64
