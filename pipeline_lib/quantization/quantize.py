"""Quantize a classifier on a calibration set, resumable at each unit."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.dvc_cache import last_run
from pipeline_lib.artifacts.fingerprints import digest_path
from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.calibration.sets import read_images
from pipeline_lib.errors import InputError
from pipeline_lib.fakequant import backend
from pipeline_lib.models.card import Card, read_card
from pipeline_lib.models.classifier import Classifier, load_classifier
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.progress import ProgressBar, notice
from pipeline_lib.quantization.caches import Caches
from pipeline_lib.quantization.checkpoint import (
    CLASSES,
    DESCRIPTION,
    MODEL,
    NEAREST,
    checkpoint_description,
    restore,
    save_classes,
    save_state,
)
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.prefix import Batches, Prefix, joined
from pipeline_lib.quantization.prepare import Prepared, prepare, rounded_to_nearest
from pipeline_lib.quantization.reconstruction import UnitResult, reconstruct_unit, tune_network
from pipeline_lib.quantization.scheme import make_scheme
from pipeline_lib.quantization.step import CountIterations

# Of what the bytes of a checkpoint are computed by. Raise it with a change that gives other bytes: work that is half
# done, or finished and kept, is then not continued. tests/test_golden.py holds it to what is computed.
VERSION = 2
BLOCKS, CURVES = "blocks.csv", "curves.csv"
FILES = [MODEL, NEAREST, DESCRIPTION, BLOCKS, CURVES]


@dataclass(frozen=True)
class Quantization:
    """How networks are quantized: sections of params.yaml, and where."""

    precision: Precision
    reconstruct: Reconstruct
    methods: Mapping[str, Method]  # by name
    device: torch.device
    cache_gib: float  # memory for what a unit reads and writes


def quantize(
    calibration: Path,
    classifier_folder: Path,
    how: Quantization,
    out: Path,
    stage: str | None = None,
    classes: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Write `out`: the reconstructed and the round-to-nearest checkpoint, their description, a row a unit, and curves.

    Returns facts for the provenance.

    Args:
        calibration: images.npy of a calibration set, uint8 (n, h, w, 3).
        classifier_folder: of the float network.
        how: precision, method, device.
        out: folder to be written.
        stage: of DVC, whose out it is: the finished work is kept until the next of the same out, and a forced run does
            all of it again. None: it is forgotten.
        classes: name and definition of each, for who loads the checkpoint; none: it has no class list.

    Raises:
        InputError: the calibration set does not fit the network or is too small, or params.yaml lacks the method.
    """
    images, classifier = _inputs(calibration, classifier_folder, how.reconstruct.held_out)
    if classes and len(classes) != read_card(classifier_folder).num_classes:
        raise InputError(
            f"{classifier_folder}: a network of {read_card(classifier_folder).num_classes} classes, but `task.classes` "
            f"lists {len(classes)}"
        )
    method = family_of(classifier.network).choose_method(how.reconstruct, how.methods)
    operators = backend(how.device)
    identity = {
        "out": out.name,
        "calibration": digest_path(calibration),
        "classifier": digest_path(classifier_folder),
        "precision": how.precision.differences(),
        "params": how.reconstruct.differences(without={"methods"}),
        "method": method.differences(),
        "version": VERSION,
        "operators": [how.device.type, operators.kind],
    }
    with WorkDirectory.locked("reconstruct", identity) as work:
        kept = work.units / MODEL
        if stage is not None and work.done(MODEL) and last_run(stage).was_of(kept, (out / MODEL).as_posix()):
            work.clear()
        if not all(map(work.done, FILES)):
            batches = Batches(calibration, range(images), Normaliser(classifier.data_config, how.device))
            _write(work, classifier, read_card(classifier_folder), batches, method, how, out.name)
        files = [*FILES, CLASSES] if classes else FILES
        if classes:  # at every run: they are no part of the identity, and may have been edited
            with work.writing(CLASSES) as path:
                save_classes(path, classes)
        costs = {result["unit"]: result["cost"] for result in map(read_json, sorted(work.units.glob("unit-*.json")))}
        if stage is None:
            work.finish(out, files)
        else:
            work.publish(out, files)
    return {
        "device": str(how.device),
        "fake_quant_backend": str(operators),
        "calibration_images": images,
        "units": costs,
    }


def _inputs(calibration: Path, classifier_folder: Path, held_out: int) -> tuple[int, Classifier]:
    """How many images there are, and the network."""
    images, classifier = read_images(calibration), load_classifier(classifier_folder)
    height, width = classifier.data_config["input_size"][1:]
    if images.shape[1:3] != (height, width):
        raise InputError(
            f"{calibration}: expected images of {height}x{width} for this network, found {images.shape[1]}x"
            f"{images.shape[2]}; run `dvc repro` to calibrate anew"
        )
    if len(images) <= held_out:
        raise InputError(
            f"{calibration}: {len(images)} images, of which `reconstruct.held_out` keeps {held_out} back; "
            "raise `calibrate.count` or lower `reconstruct.held_out` in params.yaml"
        )
    return len(images), classifier


def _write(
    work: WorkDirectory,
    classifier: Classifier,
    card: Card,
    batches: Batches,
    method: Method,
    how: Quantization,
    title: str,
) -> None:
    """Quantize, and write FILES into the work directory."""
    params, config = how.reconstruct, classifier.data_config
    scheme = partial(make_scheme, precision=how.precision, softmax=params.softmax, method=method)
    prepared = prepare(classifier.network, config["input_size"], scheme).to(how.device)
    searched_on = batches.first(min(params.range_images, len(batches) - params.held_out))
    search_ranges(prepared.quantized, searched_on, prepared.anatomy.norm_readers, method.ranges)
    if not prepared.anatomy.has_blocks:
        notice(f"{title}: timm knows no blocks of this network; every layer is reconstructed by itself")
    if not work.done(NEAREST):
        with work.writing(NEAREST) as path:
            save_state(path, rounded_to_nearest(prepared.quantized))
    results = _reconstruct(work, prepared, batches, method, how, title)
    curves = [(result["unit"], *point) for result in results for point in result["curve"]]
    table = pd.DataFrame(results).drop(columns=["curve", "cost"])
    with work.writing(BLOCKS) as path:
        table.to_csv(path, index=False)
    with work.writing(CURVES) as path:
        pd.DataFrame(curves, columns=["unit", "iteration", "loss", "gradient_norm"]).to_csv(path, index=False)
    with work.writing(MODEL) as path:
        save_state(path, prepared.quantized)
    with work.writing(DESCRIPTION) as path:
        write_json(path, checkpoint_description(prepared.quantized, card, config, prepared.scheme))


def _reconstruct(
    work: WorkDirectory,
    prepared: Prepared,
    batches: Batches,
    method: Method,
    how: Quantization,
    title: str,
) -> list[dict[str, Any]]:
    """Reconstruct the units in order, and tune the whole, each into files of the work directory.

    Returns the results, with what each took.
    """
    groups, params, quantized = prepared.anatomy.groups(method.merge), how.reconstruct, prepared.quantized
    prefix = Prefix(prepared, groups, batches, params.held_out, Caches(how.device, how.cache_gib, work.path))

    def reconstruct(number: int, count: CountIterations) -> UnitResult:
        name, unit, data = "+".join(groups[number]), joined(quantized, groups[number]), prefix.unit_data(number)
        return reconstruct_unit(name, unit, data, prefix.loss(number, data, method), params, method, count)

    def tune(count: CountIterations) -> UnitResult:
        return tune_network(quantized, prepared.reference, prefix.whole(), params, method, count)

    jobs: list[tuple[nn.Module, Callable[[CountIterations], UnitResult], int]] = [
        (joined(quantized, group), partial(reconstruct, number), method.iterations)
        for number, group in enumerate(groups)
    ]
    if method.tune_iterations:
        jobs.append((quantized, tune, method.tune_iterations))
    files = [(f"unit-{number:03d}.safetensors", f"unit-{number:03d}.json") for number in range(len(jobs))]
    finished = [all(map(work.done, pair)) for pair in files]
    lengths = [iterations + 1 for _, _, iterations in jobs]  # one more for all that is no iteration
    before = sum(compress(lengths, finished))
    rows: list[dict[str, Any]] = []
    with ProgressBar(f"reconstruct {title}", sum(lengths), before) as bar:
        for (module, job, _), (weights, row), done, end in zip(jobs, files, finished, accumulate(lengths), strict=True):
            if done:
                restore(work.units / weights, module)
                rows.append(read_json(work.units / row))
                continue
            with _measured(how.device) as cost:
                result = asdict(job(bar.advance))
            with work.writing(weights) as path:
                save_state(path, module)
            with work.writing(row) as path:
                write_json(path, {**result, "cost": cost})
            rows.append(read_json(work.units / row))
            change = f"loss {rows[-1]['loss_before']:.4g} -> {rows[-1]['loss_after']:.4g}"
            bar.advance(end - bar.done, f"{len(rows)}/{len(jobs)} {rows[-1]['unit']}: {change}")
    return rows


@contextmanager
def _measured(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds and peak memory of the block, there when it has ended."""
    cost: dict[str, float] = {}
    began = time.monotonic()
    peak_memory.start()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield cost
    cost |= {"seconds": round(time.monotonic() - began, 3), "peak_memory_mib": peak_memory.stretch()}
    if device.type == "cuda":
        cost["peak_device_mib"] = torch.cuda.max_memory_allocated(device) >> 20
