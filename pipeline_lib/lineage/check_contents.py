"""Checks of what is in datasets, calibration sets and checkpoints. Whatever a damaged file raises is a fault of it."""

import csv
import json
import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from pipeline_lib.lineage.findings import Problem, listed
from pipeline_lib.lineage.repository import CALIBRATIONS, CHECKPOINTS, DATASETS, Repository


def datasets(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Each dataset's index names its shards, and as many images as were rendered."""
    for stage, path in _products(repository, stages, DATASETS):
        rows, indexed = 0, set()
        try:
            for _, shard in _samples(path):
                rows += 1
                indexed.add(shard)
        except Exception as error:
            yield _unreadable(path / "index.jsonl", error, stage)
            continue
        there = {file.name for file in path.glob("*.tar")}
        if indexed != there:
            evidence = f"shards of the index that are not there, or the other way: {listed(indexed ^ there)}"
            yield Problem("FAIL", str(path), evidence, (stage,))
        record = repository.records.get(stage)
        if record and record.images not in (None, rows):
            yield Problem("FAIL", f"{path}/index.jsonl", f"{rows} images, but {record.images} were made", (stage,))


def calibration_sets(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """A calibration set has an image for each row that was kept; what stems from a dataset stands in its index."""
    for stage, path in _products(repository, stages, CALIBRATIONS):
        table, images = path / "samples.csv", path / "images.npy"
        keys: set[str] = set()
        kept = 0
        try:
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    keys.update(row["key"].split("+"))  # A+B: an image mixed of two samples
                    kept += row["kept"] == "True"
        except Exception as error:
            yield _unreadable(table, error, stage)
            continue
        try:
            shape = np.load(images, mmap_mode="r").shape
        except Exception as error:
            yield _unreadable(images, error, stage)
        else:
            if shape[:1] != (kept,):
                yield Problem("FAIL", str(images), f"{kept} images were kept, but its shape is {shape}", (stage,))
        rendered = [Path(dep) for dep in repository.graph.reads[stage] if dep.startswith(f"{DATASETS}/")]
        if not rendered or not all(dataset.exists() for dataset in rendered):
            continue
        for dataset in rendered:
            with suppress(Exception):  # the check of datasets reports an index that cannot be read
                keys.difference_update(key for key, _ in _samples(dataset))
        if keys:
            indices = ", ".join(f"{dataset}/index.jsonl" for dataset in rendered)
            evidence = f"{len(keys)} samples are not in {indices}: {listed(keys)}"
            yield Problem("FAIL", str(table), evidence, (stage,))


def checkpoints(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Integers fill their packed bytes, steps are positive, zero points levels of the grid, all numbers finite."""
    for stage, path in _products(repository, stages, CHECKPOINTS):
        for file in sorted(path.glob("*.safetensors")):
            try:
                description = json.loads((path / "quantization.json").read_text(encoding="utf-8"))
                faults = list(_faults_of_tensors(description["weights"], load_file(file)))
            except Exception as error:
                yield _unreadable(file, error, stage)
                continue
            for evidence in faults:
                yield Problem("FAIL", str(file), evidence, (stage,))


def _products(repository: Repository, stages: Collection[str], folder: str) -> Iterator[tuple[str, Path]]:
    """Stages, and what each wrote below the folder, as far as it is here."""
    for stage in stages:
        for path in repository.products(stage):
            if path.startswith(f"{folder}/") and Path(path).exists():
                yield stage, Path(path)


def _unreadable(path: Path, error: Exception, stage: str) -> Problem:
    return Problem("FAIL", str(path), f"unreadable: {type(error).__name__}: {' '.join(str(error).split())}", (stage,))


def _samples(dataset: Path) -> Iterator[tuple[str, str]]:
    """Key and shard of every sample of a dataset."""
    with (dataset / "index.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield str(row["key"]), str(row["shard"])


def _faults_of_tensors(layers: dict[str, Any], tensors: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a checkpoint's tensors, by what quantization.json says of each layer."""
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            yield f"{name}: not all of its numbers are finite"
    for name, layer in layers.items():
        bits, count = layer["bits"], int(np.prod(layer["shape"]))
        packed, step, zero_point = tensors[f"{name}.integers"], tensors[f"{name}.step"], tensors[f"{name}.zero_point"]
        needed = math.ceil(count * bits / 8)
        if packed.size != needed:
            yield f"{name}: {packed.size} bytes, but {count} integers of {bits} bits need {needed}"
        if not (step > 0).all():
            yield f"{name}: a step is not positive"
        if not ((zero_point == zero_point.round()) & (zero_point >= 0) & (zero_point < 2**bits)).all():
            yield f"{name}: a zero point is no level of {bits} bits"
