"""Rendering some samples of a finished dataset again, to compare their pixels."""

import hashlib
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import torch

from pipeline_lib.artifacts.records import RenderedRow, iterate_lines
from pipeline_lib.artifacts.shards import read_shard
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.generator import Generator


def render_again(
    dataset: Path, generator: Path, params: Synthesize, device: torch.device, count: int
) -> Iterator[tuple[str, bool]]:
    """Key, and whether the pixels are those of the dataset, of samples at even distances.

    Each is rendered in the batch that it was rendered in: another one may give other last bits.

    Args:
        dataset: folder of shards and index.jsonl.
        generator: folder of the diffusion pipeline that rendered it.
        params: the parameters that it was rendered with.
        device: where to render.
        count: samples to render; all of them if the dataset has fewer.
    """
    if device.type == "cpu":
        torch.set_num_threads(1)
    index = dataset / "index.jsonl"
    total = sum(1 for _ in iterate_lines(index, RenderedRow))
    chosen = {round(i * (total - 1) / max(1, count - 1)) for i in range(min(count, total))}
    pipeline = Generator(generator, params, device)
    first = 0  # position in the dataset of the shard's first sample
    for name, group in groupby(iterate_lines(index, RenderedRow), key=lambda row: row["shard"]):
        shard = list(group)
        places = [place for place in range(len(shard)) if first + place in chosen]
        first += len(shard)
        if not places:
            continue
        pixels = [hashlib.sha256(sample.image.tobytes()).hexdigest() for sample in read_shard(dataset / name)]
        embeddings = pipeline.embed(shard)
        for place in places:
            start = place // params.batch_size * params.batch_size
            picture = pipeline.render(shard[start : start + params.batch_size], embeddings)[place - start]
            digest = hashlib.sha256(picture.pixels.tobytes()).hexdigest()
            yield shard[place]["key"], digest == pixels[place] == shard[place]["pixel_sha256"]
