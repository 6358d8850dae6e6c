"""What the stages before the report leave, in a small tree of real artifacts, and the report of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline_lib.artifacts.records import write_json
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.report.page import write_report

AXES = Axes(
    recipes=["mixup"],
    treated=[],
    treatments=[],
    noise=["noise"],
    distilled=[],
    real=[],
    images=[],
    sources=["mixup", "noise"],
    models=["resnet", "vit"],
    precisions=["w2a4"],
)
UNITS = ["conv1", "layer1.0", "fc"]
SAMPLES = 3


def result(top1: float, agreement: float | None = None) -> dict[str, object]:
    values = {"top1": top1, "top1_low": top1 - 0.5, "top1_high": top1 + 0.5, "top5": 99.0}
    values |= {} if agreement is None else {"agreement": agreement}
    return {**values, "per_class": {"0": top1 - 1, "1": top1 + 1}}


def write_curves(path: Path, loss: float) -> None:
    """Units of 45 points, the second cut short, and the whole network."""
    rows = [
        (u, i, loss / i, 10 * loss / i) for u in (*UNITS, "network") for i in range(1, 46) if u != UNITS[1] or i < 8
    ]
    pd.DataFrame(rows, columns=["unit", "iteration", "loss", "gradient_norm"]).to_csv(path, index=False)


def write_layers(folder: Path, rng: np.random.Generator) -> None:
    columns = ["layer", "weight_bits", "activation_bits", "divergence"]
    rows = [("conv1", 8, 8, 0.0), ("fc <x>", 2, 4, 0.3)]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "sensitivity.csv", index=False)
    part = {"lo": -1.0, "hi": 2.0, "counts": rng.integers(0, 99, 48).tolist(), "clip_lo": -0.5, "clip_hi": 2.5}
    write_json(folder / "histograms.json", {layer: {"weight": part, "input": part} for layer, *_ in rows})


def write_predictions(folder: Path, rng: np.random.Generator) -> None:
    """Two coats and a bag; reconstruction takes the second coat, that was right, for a bag."""
    rows = [("0", 0, 0, 0, 0), ("1", 0, 0, 1, 0), ("2", 1, 0, 0, 1)]
    columns = ["key", "label", "float", "reconstructed", "nearest"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "predictions.csv", index=False)
    np.save(folder / "flipped.npy", rng.integers(0, 256, (1, 32, 32, 3), dtype=np.uint8))
    flips = pd.DataFrame([("1", 0, 0, 1)], columns=columns[:4])
    flips.to_csv(folder / "flipped.csv", index=False)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 models, 1 precision, a recipe and noise, and their report; read only."""
    data = tmp_path_factory.mktemp("report") / "data"
    rng = np.random.default_rng(0)
    for model, accuracy in (("resnet", 90.0), ("vit", 80.0)):
        metrics = {"model": model, "images": 100, "classes": ["coat", "bag <b>"], "float": result(accuracy)}
        write_json(data / f"evaluation/float-{model}/metrics.json", metrics)
        for source, loss in (("mixup", 2.0), ("noise", 30.0)):
            cell = f"{source}-{model}-w2a4"
            metrics = {
                "source": source,
                "model": model,
                "precision": "w2a4",
                "images": 100,
                "reconstructed": result(accuracy - loss, 95.0),
                "nearest": result(accuracy - 2 * loss, 85.0),
            }
            write_json(data / f"evaluation/{cell}/metrics.json", metrics)
            gap = pd.DataFrame({"unit": UNITS, "calibration": [0.1, 0.2, 0.4], "labelled": [0.2, 0.4, 0.4 * loss]})
            gap.to_csv(data / f"evaluation/{cell}/gap.csv", index=False)
            losses = {name: rng.uniform(0.01, 1, 3) for name in ("loss_before", "loss_after")}
            losses |= {name: rng.uniform(0.01, 1, 3) for name in ("held_out_before", "held_out_after")}
            weights = {"conv1": {"bits": 8, "shape": [4, 3, 3, 3], "granularity": "per channel"}}
            inputs = {"conv1.quantizer": {"bits": 8, "granularity": "per tensor", "qmin": 0, "qmax": 255}}
            if model == "vit":
                inputs["softmax"] = {"bits": 4, "granularity": "per tensor", "kind": "log-sqrt2"}
            description = {"weights": weights, "activations": inputs, "simulation_only": model == "vit"}
            write_json(data / f"quantized/{cell}/quantization.json", description)
            blocks = pd.DataFrame({"unit": UNITS, **losses, "flipped": 0.1})
            blocks.to_csv(data / f"quantized/{cell}/blocks.csv", index=False)
            write_curves(data / f"quantized/{cell}/curves.csv", loss)
            write_layers(data / f"evaluation/{cell}", rng)
            write_predictions(data / f"evaluation/{cell}", rng)
    pixels = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for source, left_out in (("noise", {}), ("mixup", {"blank": 2, "near-duplicate": 1})):
        folder = data / f"preview/{source}-resnet"
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", pixels)
        np.save(folder / "dropped.npy", pixels[: len(left_out)])
        rows = [
            (i, "0 1", f"a photo of a coat & a bag, {i}" if left_out else "", "{}", i < 8, "")
            for i in range(8 + len(left_out))
        ]
        columns = ["key", "classes", "prompt", "scores", "kept", "reason"]
        samples = pd.DataFrame(rows, columns=columns).astype({"reason": str, "scores": str})
        samples.loc[8:, "reason"] = ["blank", "near-duplicate of <3>"][: len(left_out)]
        if left_out:
            samples.loc[4, "scores"] = json.dumps({"pixel_deviation": 71.585, "log_likelihood": -2})
        samples.to_csv(folder / "samples.csv", index=False)
        write_json(folder / "summary.json", {"images": 8, "left_out": left_out})
    choice = [
        {"model": model, "precision": "w2a4", "source": source, "agreement": score, "on_mixup": score}
        | {"judge_classes": 2, "chosen": chosen}
        for model in ("resnet", "vit")
        for source, score, chosen in (("mixup", 81.25, model == "resnet"), ("noise", 82.5, model == "vit"))
    ]
    (data / "choice").mkdir()
    pd.DataFrame(choice).to_csv(data / "choice/ranking.csv", index=False)
    write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    return data


@pytest.fixture
def report(made: Path) -> Path:
    """Read only."""
    return made / "report"


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy that has no report yet."""
    return Path(shutil.copytree(made, tmp_path / "data", ignore=shutil.ignore_patterns("report")))
