"""Rendering some samples of a finished dataset again, to compare their pixels."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.artifacts.records import iterate_lines
from pipeline_lib.artifacts.shards import read_shard
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.generator import Generator


def rerender(
    dataset: Path, generator: Path, params: Synthesize, device: torch.device, count: int
) -> Iterator[tuple[str, bool]]:
    """Key, and whether the pixels are the same, of `count` samples at even distances.

    Each is rendered in the batch that it was rendered in: another one may give other last bits.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
    total = sum(1 for _ in iterate_lines(dataset / "index.jsonl"))
    chosen = {round(i * (total - 1) / max(1, count - 1)) for i in range(min(count, total))}
    pipeline = Generator(generator, params, device)
    shard: list[dict[str, Any]] = []
    for number, row in enumerate(iterate_lines(dataset / "index.jsonl")):
        shard = [row] if not shard or row["shard"] != shard[0]["shard"] else [*shard, row]
        if len(shard) < params.shard_size and number < total - 1:
            continue
        first = number - len(shard) + 1
        places = [place for place in range(len(shard)) if first + place in chosen]
        if not places:
            continue
        pixels = [hashlib.sha256(s.image.tobytes()).hexdigest() for s in read_shard(dataset / row["shard"])]
        embeddings = pipeline.embed(shard)
        for place in places:
            start = place // params.batch_size * params.batch_size
            picture = pipeline.render(shard[start : start + params.batch_size], embeddings)[place - start]
            digest = hashlib.sha256(picture.pixels.tobytes()).hexdigest()
            yield shard[place]["key"], digest == pixels[place] == shard[place]["pixel_sha256"]
