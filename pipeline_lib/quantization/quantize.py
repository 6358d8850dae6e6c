"""Quantize a classifier on a calibration set, resumable at each unit."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import accumulate, compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from pipeline_lib.artifacts.fingerprints import digest_code, digest_path
from pipeline_lib.artifacts.memory import peak_memory
from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.errors import InputError
from pipeline_lib.fakequant import backend
from pipeline_lib.models.card import read_card
from pipeline_lib.models.classifier import Classifier, load_classifier
from pipeline_lib.models.device import place
from pipeline_lib.models.normalise import Normaliser
from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.models.units import reconstruction_units
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.progress import ProgressBar, notice
from pipeline_lib.quantization.attach import Scheme, attach, fold, make_scheme, method_for, rounded_to_nearest
from pipeline_lib.quantization.caches import Caches
from pipeline_lib.quantization.checkpoint import describe, restore, save_network, save_unit
from pipeline_lib.quantization.dataflow import Group, grouped, layers, observe
from pipeline_lib.quantization.initialise import layer_norm_readers, search_ranges
from pipeline_lib.quantization.prefix import Batches, Prefix, joined
from pipeline_lib.quantization.reconstruction import UnitResult, reconstruct_unit, tune_network
from pipeline_lib.quantization.step import Advance

MODEL, NEAREST, DESCRIPTION = "model.safetensors", "nearest.safetensors", "quantization.json"
BLOCKS, CURVES = "blocks.csv", "curves.csv"


def quantize(
    calibration: Path,
    classifier_folder: Path,
    precision: Precision,
    params: Reconstruct,
    methods: Mapping[str, Method],
    device: torch.device,
    cache_gib: float,
    out: Path,
) -> dict[str, Any]:
    """Write `out`: the reconstructed and the round-to-nearest checkpoint, their description, a row a unit, and curves.

    `calibration` is the images.npy of a calibration set, uint8 (n, h, w, 3); `methods` are those of `cnn` and `vit`;
    `cache_gib` is the memory for what a unit reads and writes. Returns facts for the provenance.

    Raises:
        InputError: the calibration set does not fit the network or is too small.
    """
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
    identity = {
        "calibration": digest_path(calibration),
        "classifier": digest_path(classifier_folder),
        "precision": precision.model_dump(),
        "params": params.model_dump(),
        "methods": {family: method.model_dump() for family, method in methods.items()},
        "code": digest_code(),
        "operators": asdict(backend(device)),
    }
    with WorkDirectory.locked("reconstruct", identity) as work:
        batches = Batches(calibration, range(len(images)), Normaliser(classifier.data_config, device))
        reference, quantized, scheme, units = _prepare(classifier, batches, precision, params, methods, device)
        names = list(scheme.bits)
        method = method_for(names, methods)
        if set(units) <= set(names):
            notice(f"{out.name}: timm knows no blocks of this network; every layer is reconstructed by itself")
        if not work.done(NEAREST):
            with work.writing(NEAREST) as path:
                save_network(path, rounded_to_nearest(quantized))
        groups, chained = grouped(reference, next(iter(batches))[:1], units, method.merge)
        caches = Caches(device, cache_gib, work.path)
        prefix = Prefix(reference, quantized, groups, chained, batches, params.held_out, caches)
        results = _reconstruct(work, reference, quantized, groups, prefix, params, method, device, out.name)
        costs = {result["unit"]: result.pop("cost") for result in results}
        curves = [(result["unit"], *point) for result in results for point in result.pop("curve")]
        with work.writing(BLOCKS) as path:
            pd.DataFrame(results).to_csv(path, index=False)
        with work.writing(CURVES) as path:
            pd.DataFrame(curves, columns=["unit", "iteration", "loss", "gradient_norm"]).to_csv(path, index=False)
        with work.writing(MODEL) as path:
            save_network(path, quantized)
        with work.writing(DESCRIPTION) as path:
            card = read_card(classifier_folder)
            write_json(path, describe(quantized, card, classifier.data_config, scheme))
        work.finish(out, [MODEL, NEAREST, DESCRIPTION, BLOCKS, CURVES])
    return {
        "device": str(device),
        "fake_quant_backend": str(backend(device)),
        "calibration_images": len(images),
        "units": costs,
    }


def _reconstruct(
    work: WorkDirectory,
    reference: nn.Module,
    quantized: nn.Module,
    groups: Sequence[Group],
    prefix: Prefix,
    params: Reconstruct,
    method: Method,
    device: torch.device,
    title: str,
) -> list[dict[str, Any]]:
    """Reconstruct the groups of blocks in order, and tune the whole, each into files of the work directory.

    Returns the results, with what each took.
    """

    def reconstruct(number: int, advance: Advance) -> UnitResult:
        name, unit = "+".join(groups[number]), joined(quantized, groups[number])
        return reconstruct_unit(name, unit, *prefix.advance(number, method), params, method, advance)

    def tune(advance: Advance) -> UnitResult:
        return tune_network(quantized, reference, prefix.whole(), params, method, advance)

    jobs: list[tuple[nn.Module, Callable[[Advance], UnitResult], int]] = [
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
            with _measured(device) as cost:
                result = asdict(job(bar.advance))
            with work.writing(weights) as path:
                save_unit(path, module)
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


def read_images(path: Path) -> Pixels:
    """The images of a calibration set, memory-mapped.

    Raises:
        InputError: absent, or not uint8 (n, h, w, 3).
    """
    try:
        images: Pixels = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise InputError(f"{path}: calibration set not found; `dvc repro` makes it") from None
    except ValueError as error:
        raise InputError(f"{path}: not a numpy file ({error}); `dvc checkout` restores it") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise InputError(f"{path}: expected uint8 (n, h, w, 3), found {images.dtype} {images.shape}")
    return images


def _prepare(
    classifier: Classifier,
    batches: Batches,
    precision: Precision,
    params: Reconstruct,
    methods: Mapping[str, Method],
    device: torch.device,
) -> tuple[nn.Module, nn.Module, Scheme, list[str]]:
    """The float network, batch norm folded; its copy with quantizers that have their grids; the scheme; the units."""
    reference = classifier.network
    blank = fold(reference, tuple(classifier.data_config["input_size"]))
    units = list(reconstruction_units(reference, blank, layers(observe(reference, blank))))
    quantized = copy.deepcopy(reference)
    readers = layer_norm_readers(observe(quantized, blank))
    scheme = make_scheme(quantized, blank, precision, params.softmax, methods)
    ranges = method_for(list(scheme.bits), methods).ranges
    attach(quantized, blank, scheme)
    reference, quantized = place(reference, device), place(quantized, device)
    trained = len(batches) - params.held_out
    search_ranges(quantized, batches.first(min(params.range_images, trained)), readers, ranges)
    return reference, quantized, scheme, units
