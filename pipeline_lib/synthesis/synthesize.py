"""Render a recipe's prompts into shards, resumable at each shard."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline_lib.artifacts.fingerprints import digest_code, digest_path
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import pack_shard, read_shard
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.errors import InputError
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.progress import ProgressBar
from pipeline_lib.synthesis.executors import Worker, run_shards
from pipeline_lib.synthesis.generator import Generator, locate
from pipeline_lib.synthesis.plan import Shard, plan_shards

INDEX = "index.jsonl"
MOST_CPU_WORKERS = 4  # each holds its own copy of the generator


def devices(runtime: Runtime) -> list[torch.device]:
    """One device a worker.

    Raises:
        InputError: CUDA was asked for and there is none.
    """
    cuda = torch.cuda.device_count()
    if runtime.device == "cuda" and not cuda:
        raise InputError("params.yaml: `runtime.device` is cuda, but torch sees no CUDA device; set it to auto or cpu")
    if cuda and runtime.device != "cpu":
        return [torch.device("cuda", number % cuda) for number in range(runtime.workers or cuda)]
    return [torch.device("cpu")] * (runtime.workers or min(torch.get_num_threads(), MOST_CPU_WORKERS))


def make_worker(generator: Path, params: Synthesize, placement: list[torch.device], number: int) -> Worker:
    """Load the pipeline on the worker's device; the result renders a shard into the bytes of its tar."""
    if placement[number].type == "cpu":
        torch.set_num_threads(1)  # another number gives other last bits; more workers are faster than more threads
    pipeline = Generator(generator, params, placement[number])

    def render(shard: Shard) -> bytes:
        samples = []
        for start in range(0, len(shard.samples), params.batch_size):
            batch = shard.samples[start : start + params.batch_size]
            for image, sample in zip(pipeline.render(batch), batch, strict=True):
                deviation = round(float(np.asarray(image).std()), 3)
                blank = deviation < params.blank_deviation
                samples.append((image, {**sample, "pixel_deviation": deviation, "blank": blank}))
        return pack_shard(samples)

    return render


def synthesize(prompts: Path, generator: Path, params: Synthesize, runtime: Runtime, out: Path) -> dict[str, Any]:
    """Render the prompts into `out`: NNNNNN.tar and index.jsonl, a line a sample. Returns facts for the provenance.

    Raises:
        InputError: the prompts or the generator are not usable, or another run renders the same dataset.
    """
    rows = read_lines(prompts)
    if not rows:
        raise InputError(f"{prompts}: no prompts; `dvc repro` writes them")
    locate(generator)
    placement = devices(runtime)
    shards = plan_shards(rows, params.shard_size, params.seed)
    identity = {
        "prompts": digest_path(prompts),
        "generator": digest_path(generator),
        "params": params.model_dump(),
        "code": digest_code(),
    }
    with WorkDirectory.locked("synthesize", identity) as work:
        todo = [shard for shard in shards if not work.done(shard.name)]
        done = len(rows) - sum(len(shard.samples) for shard in todo)
        with ProgressBar(f"synthesize {out.name}", len(rows), done) as bar:

            def commit(shard: Shard, tar: bytes) -> None:
                with work.writing(shard.name) as path:
                    path.write_bytes(tar)
                bar.advance(len(shard.samples), f"{bar.rate:.1f} images/s")

            if todo:
                run_shards(todo, partial(make_worker, generator, params, placement), commit, len(placement))
            rate = bar.rate
        index = list(_index(work.units, shards))
        with work.writing(INDEX) as path:
            write_lines(path, index)
        work.finish(out, [INDEX, *(shard.name for shard in shards)])
    return {
        "devices": [_describe(device) for device in placement],
        "images": len(index),
        "images_rendered_in_this_run": len(rows) - done,
        "images_per_second": round(rate, 3),
        "blank_images": sum(row["blank"] for row in index),
    }


def _index(folder: Path, shards: Iterable[Shard]) -> Iterable[dict[str, Any]]:
    for shard in shards:
        for sample in read_shard(folder / shard.name):
            yield {**sample.record, "shard": shard.name}


def _describe(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
