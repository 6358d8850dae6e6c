"""Where calibration images come from: rendered shards, noise, or pictures that the user brings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.artifacts.records import IndexRow, read_lines
from pipeline_lib.artifacts.shards import Sample, read_shard
from pipeline_lib.errors import InputError
from pipeline_lib.pictures.picture import drawn
from pipeline_lib.pictures.tars import pictures_at

USUAL = (".jpg", ".png", ".webp")


def synthetic(dataset: Path) -> Iterator[Sample]:
    """The samples of a rendered dataset, in order, with the records of its index, which the shards must agree with.

    Raises:
        InputError: a shard is absent, truncated, altered, or not the one that the index describes.
    """
    index = read_lines(dataset / "index.jsonl", IndexRow)
    expected = iter(index)
    shards = dict.fromkeys(record["shard"] for record in index)  # each once, in order
    for shard in shards:
        for sample in read_shard(dataset / shard):
            record = next(expected, None)
            # the index adds to what the shard has of a sample
            if record is None or record != {
                **sample.record,
                "duplicate_of": record.get("duplicate_of"),
                "shard": shard,
            }:
                raise InputError(
                    f"{dataset / shard}: sample {sample.key} is not what {dataset / 'index.jsonl'} says; "
                    "delete the dataset and run `dvc checkout`, or `dvc repro` to make it again"
                )
            yield Sample(sample.image, record)
    missing = next(expected, None)
    if missing is not None:
        raise InputError(
            f"{dataset / missing['shard']}: sample {missing['key']} of the index is missing from the shard"
        )


def pictures(path: Path, seed: int) -> Iterator[Sample]:
    """The pictures of a tar, of a folder of tars, or of a folder, in an order that is drawn by their keys.

    Raises:
        InputError: there is no picture, a tar is truncated or altered, or a picture is damaged.
    """
    found = pictures_at(path)
    if not found.pictures:
        raise InputError(
            f"{path}: no pictures; expected some of {', '.join(USUAL)} or other formats, or WebDataset tars"
            f"{found.words_on_skipped}"
        )
    for picture in drawn(found.pictures, "pictures", seed):
        yield Sample(picture.open(), {"key": picture.key, "classes": list(picture.classes)})


def noise(count: int, seed: int, data_config: dict[str, Any]) -> Iterator[Sample]:
    """Gaussian noise in the network's input space: standard normal after normalisation, then rounded to pixels."""
    channels, height, width = data_config["input_size"]
    mean = np.array(data_config["mean"])
    std = np.array(data_config["std"])
    for number in range(count):
        key = f"noise-{number:06d}"
        normal = np.random.default_rng(seed_of("noise", seed, key)).standard_normal((height, width, channels))
        pixels = np.clip(np.rint((normal * std + mean) * 255), 0, 255).astype(np.uint8)
        yield Sample(Image.fromarray(pixels if channels == 3 else pixels[..., 0]), {"key": key, "classes": []})
