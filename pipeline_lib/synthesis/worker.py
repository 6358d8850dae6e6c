"""The worker of synthesis: it renders a shard into the bytes of a tar."""

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from PIL import Image

from pipeline_lib.artifacts.shards import pack_shard
from pipeline_lib.execution.tasks import Result, Worker
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.defects import defect
from pipeline_lib.synthesis.generator import Generator, Picture
from pipeline_lib.synthesis.plan import Shard

Batch = tuple[list[Picture], tuple[dict[str, Any], ...]]


def make_worker(generator: Path, params: Synthesize, device: torch.device) -> Worker[Shard]:
    """Load the pipeline on the device; the result renders a shard."""
    if device.type == "cpu":
        torch.set_num_threads(1)  # another number gives other last bits; more workers are faster than more threads
    return worker_with(Generator(generator, params, device), params, device)


def worker_with(pipeline: Generator, params: Synthesize, device: torch.device) -> Worker[Shard]:
    """A worker with a pipeline that is loaded."""

    def render(shard: Shard) -> Result:
        began = time.monotonic()
        batches: SimpleQueue[Batch | None] = SimpleQueue()
        with ThreadPoolExecutor(1) as packer:  # which encodes a batch while the next one is rendered
            packed = packer.submit(_pack, batches, params.blank_deviation)
            try:
                embeddings = pipeline.embed(shard.samples)
                for start in range(0, len(shard.samples), params.batch_size):
                    samples = shard.samples[start : start + params.batch_size]
                    batches.put((pipeline.render(samples, embeddings), samples))
            finally:
                batches.put(None)
            tar, packing_seconds = packed.result()
        facts = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "seconds": round(time.monotonic() - began, 3),
            "packing_seconds": round(packing_seconds, 3),  # of encoding and taring, some of it beside the rendering
        }
        return Result(tar, facts)

    return render


def _pack(batches: "SimpleQueue[Batch | None]", blank_deviation: float) -> tuple[bytes, float]:
    """The tar of all batches, and the seconds of processor time that it took."""

    def samples() -> Iterator[tuple[Image.Image, dict[str, Any]]]:
        while batch := batches.get():
            for picture, sample in zip(*batch, strict=True):
                found = {
                    "pixel_deviation": round(float(picture.pixels.std()), 3),
                    "pixel_sha256": hashlib.sha256(picture.pixels.tobytes()).hexdigest(),
                    "defect": defect(picture, blank_deviation),
                }
                yield Image.fromarray(picture.pixels), {**sample, **found}

    began = time.thread_time()
    return pack_shard(samples()), time.thread_time() - began
