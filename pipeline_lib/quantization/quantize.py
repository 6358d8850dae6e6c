"""Quantize a classifier on a calibration set, resumable at each unit."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.fingerprints import digest_path
from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.calibration.sets import read_images
from pipeline_lib.errors import InputError
from pipeline_lib.fakequant import backend
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import load_classifier
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.progress import ProgressBar, notice
from pipeline_lib.quantization.caches import Caches
from pipeline_lib.quantization.checkpoint import (
    DESCRIPTION,
    MODEL,
    NEAREST,
    checkpoint_description,
    restore,
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
VERSION = 1
BLOCKS, CURVES = "blocks.csv", "curves.csv"


@dataclass(frozen=True)
class Quantization:
    """How networks are quantized: sections of params.yaml, and where."""

    precision: Precision
    reconstruct: Reconstruct
    methods: Mapping[str, Method]  # by name
    device: torch.device
    cache_gib: float  # memory for what a unit reads and writes


def quantize(calibration: Path, classifier_folder: Path, how: Quantization, out: Path) -> dict[str, Any]:
    """Write `out`: the reconstructed and the round-to-nearest checkpoint, their description, a row a unit, and curves.

    `calibration` is the images.npy of a calibration set, uint8 (n, h, w, 3). Returns facts for the provenance.

    Raises:
        InputError: the calibration set does not fit the network or is too small, or params.yaml lacks the method.
    """
    params, device = how.reconstruct, how.device
    images = read_images(calibration)
    classifier = load_classifier(classifier_folder)
    height, width = classifier.data_config["input_size"][1:]
    if images.shape[1:3] != (height, width):
        raise InputError(
            f"{calibration}: expected images of {height}x{width} for this network, found {images.shape[1]}x"
            f"{images.shape[2]}; run `dvc repro` to calibrate anew"
        )
    if len(images) <= params.held_out:
        raise InputError(
            f"{calibration}: {len(images)} images, of which `reconstruct.held_out` keeps {params.held_out} back; "
            "raise `calibrate.count` or lower `reconstruct.held_out` in params.yaml"
        )
    method = family_of(classifier.network).choose_method(params, how.methods)
    operators = backend(device)
    identity = {
        "out": out.name,
        "calibration": digest_path(calibration),
        "classifier": digest_path(classifier_folder),
        "precision": how.precision.model_dump(exclude_defaults=True),
        "params": params.model_dump(exclude_defaults=True, exclude={"methods"}),
        "method": method.model_dump(exclude_defaults=True),
        "version": VERSION,
        "operators": [device.type, operators.kind],
    }
    with WorkDirectory.locked("reconstruct", identity) as work:
        batches = Batches(calibration, range(len(images)), Normaliser(classifier.data_config, device))
        prepared = prepare(
            classifier.network,
            classifier.data_config["input_size"],
            partial(make_scheme, precision=how.precision, softmax=params.softmax, method=method),
        ).to(device)
        searched_on = min(params.range_images, len(images) - params.held_out)
        search_ranges(prepared.quantized, batches.first(searched_on), prepared.anatomy.norm_readers, method.ranges)
        if not prepared.anatomy.has_blocks:
            notice(f"{out.name}: timm knows no blocks of this network; every layer is reconstructed by itself")
        if not work.done(NEAREST):
            with work.writing(NEAREST) as path:
                save_state(path, rounded_to_nearest(prepared.quantized))
        caches = Caches(device, how.cache_gib, work.path)
        results = _reconstruct(work, prepared, batches, caches, method, how, out.name)
        costs = {result["unit"]: result.pop("cost") for result in results}
        curves = [(result["unit"], *point) for result in results for point in result.pop("curve")]
        with work.writing(BLOCKS) as path:
            pd.DataFrame(results).to_csv(path, index=False)
        with work.writing(CURVES) as path:
            pd.DataFrame(curves, columns=["unit", "iteration", "loss", "gradient_norm"]).to_csv(path, index=False)
        with work.writing(MODEL) as path:
            save_state(path, prepared.quantized)
        with work.writing(DESCRIPTION) as path:
            card, config = read_card(classifier_folder), classifier.data_config
            write_json(path, checkpoint_description(prepared.quantized, card, config, prepared.scheme))
        work.finish(out, [MODEL, NEAREST, DESCRIPTION, BLOCKS, CURVES])
    return {
        "device": str(device),
        "fake_quant_backend": str(operators),
        "calibration_images": len(images),
        "units": costs,
    }


def _reconstruct(
    work: WorkDirectory,
    prepared: Prepared,
    batches: Batches,
    caches: Caches,
    method: Method,
    how: Quantization,
    title: str,
) -> list[dict[str, Any]]:
    """Reconstruct the units in order, and tune the whole, each into files of the work directory.

    Returns the results, with what each took.
    """
    groups, params, quantized = prepared.anatomy.groups(method.merge), how.reconstruct, prepared.quantized
    prefix = Prefix(prepared, groups, batches, params.held_out, caches)

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
