"""What became of a sample, and of a class."""

import csv
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.records import RenderedRow, iterate_lines
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.repository import CALIBRATIONS, Repository


def trace_sample(repository: Repository, key: str) -> dict[str, Any]:
    """All that is known of one sample: its record, its place in the shard, its batch, and what used it.

    `batch` are the keys of the samples that were rendered together, its own among them.

    Raises:
        InputError: no dataset has it.
    """
    for dataset in repository.datasets():
        place, shard = 0, ""
        for row in iterate_lines(Path(dataset) / "index.jsonl", RenderedRow):
            place = place + 1 if row["shard"] == shard else 0
            shard = row["shard"]
            if row["key"] == key:
                calibration_sets = list(_calibration_sets(repository, key))
                return {
                    **row,
                    "dataset": dataset,
                    "place_in_shard": place,
                    "batch": _batch(repository, dataset, shard, place),
                    "calibration_sets": calibration_sets,
                    "checkpoints": _checkpoints_of(repository, calibration_sets),
                }
    raise InputError(f"{key}: no dataset has a sample of this key; `trace --class NAME` lists those of a class")


def samples_of_class(repository: Repository, numbers: Collection[int]) -> Iterator[dict[str, Any]]:
    """Key, dataset, prompt, class and weight of every sample whose prompt names a class of one of these indices."""
    for dataset in repository.datasets():
        for row in iterate_lines(Path(dataset) / "index.jsonl", RenderedRow):
            for number, weight in zip(row["classes"], row["weights"], strict=True):
                if number in numbers:
                    named = {"prompt": row["prompt"], "class": number, "weight": weight}
                    yield {"key": row["key"], "dataset": dataset, **named}


def _batch(repository: Repository, dataset: str, shard: str, place: int) -> list[str]:
    """Keys of the samples that were rendered together with the one at this place of the shard."""
    stage = repository.graph.producer(dataset)
    size = repository.runs[stage].params["synthesize"]["batch_size"] if stage else 1
    rows = (row for row in iterate_lines(Path(dataset) / "index.jsonl", RenderedRow) if row["shard"] == shard)
    return [row["key"] for number, row in enumerate(rows) if number // size == place // size]


def _checkpoints_of(repository: Repository, calibration_sets: list[dict[str, Any]]) -> list[str]:
    """The checkpoints calibrated on one of these sets, if the sample was kept there."""
    stages: set[str] = set()
    for entry in calibration_sets:
        if entry["kept"]:
            stages.update(repository.graph.descendants(entry["stage"]))
    return [path for path, stage in repository.checkpoints().items() if stage in stages]


def _calibration_sets(repository: Repository, key: str) -> Iterator[dict[str, Any]]:
    """The rows of calibration sets that hold the sample, or an image mixed of it and another one."""
    for path in sorted(Path(CALIBRATIONS).glob("*/samples.csv")):
        stage = repository.graph.producer(path.parent.as_posix())
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if key in row["key"].split("+") and stage:  # A+B: an image mixed of two samples
                    yield {
                        "path": path.parent.as_posix(),
                        "row": row["key"],
                        "stage": stage,
                        "kept": row["kept"] == "True",
                        "reason": row["reason"],
                        "scores": json.loads(row["scores"]),
                    }
