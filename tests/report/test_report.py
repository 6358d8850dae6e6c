"""The report over a small tree of real artifacts."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline_lib.artifacts.records import write_json
from pipeline_lib.errors import InputError
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
    sources=["mixup", "noise"],
    models=["resnet", "vit"],
    precisions=["w2a4"],
)
UNITS = ["conv1", "layer1.0", "fc"]
SAMPLES = 3


def result(top1: float, agreement: float | None = None) -> dict[str, object]:
    values = {"top1": top1, "top1_low": top1 - 0.5, "top1_high": top1 + 0.5, "top5": 99.0}
    values |= {} if agreement is None else {"agreement": agreement}
    return {**values, "per_class": {"coat": top1 - 1, "bag <b>": top1 + 1}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What the stages before the report leave: 2 models, 1 precision, a recipe and noise."""
    data = tmp_path / "data"
    rng = np.random.default_rng(0)
    for model, accuracy in (("resnet", 90.0), ("vit", 80.0)):
        metrics = {"model": model, "images": 100, "float": result(accuracy)}
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
    pixels = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    for source, left_out in (("noise", {}), ("mixup", {"blank": 2, "duplicate": 1})):
        folder = data / f"preview/{source}-resnet"
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", pixels)
        prompts = [f"a photo of a coat & a bag, {i}" if source == "mixup" else "" for i in range(8)]
        pd.DataFrame({"key": range(8), "prompt": prompts}).to_csv(folder / "samples.csv", index=False)
        write_json(folder / "summary.json", {"images": 8, "left_out": left_out})
    return data


@pytest.fixture
def report(data: Path) -> Path:
    out = data / "report"
    write_report(data, AXES, Report(samples=SAMPLES), out)
    return out


def test_the_same_inputs_give_the_same_bytes(data: Path, report: Path) -> None:
    first = {path.name: path.read_bytes() for path in report.iterdir()}
    write_report(data, AXES, Report(samples=SAMPLES), report)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == first
    assert sorted(first) == ["index.html", "leaderboard.csv"]


def test_leaderboard_holds_every_network_in_the_order_of_the_axes(report: Path) -> None:
    table = pd.read_csv(report / "leaderboard.csv")
    measures = ["top1", "top1_low", "top1_high", "top5", "agreement"]
    assert list(table) == ["model", "precision", "source", "method", *measures]
    expected = [
        (model, *network)
        for model in ("resnet", "vit")
        for network in (
            ("float", "-", "float"),
            ("w2a4", "mixup", "nearest"),
            ("w2a4", "mixup", "reconstructed"),
            ("w2a4", "noise", "nearest"),
            ("w2a4", "noise", "reconstructed"),
        )
    ]
    assert list(table[["model", "precision", "source", "method"]].itertuples(index=False, name=None)) == expected
    assert table.top1.tolist() == [90, 86, 88, 30, 60, 80, 76, 78, 20, 50]
    assert table.agreement.isna().tolist() == [True, False, False, False, False] * 2


def test_page_needs_nothing_from_outside(report: Path) -> None:
    page = (report / "index.html").read_text()
    references = re.findall(r"""(?:(?:src|href)\s*=\s*|url\()["']?([^"')]*)""", page)
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert not re.search(r"<(script|link|iframe)|@import", page)


def test_every_sample_decodes_and_carries_its_prompt(report: Path) -> None:
    page = (report / "index.html").read_text()
    images = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"', page)
    assert [alt for _, alt in images] == [
        *(f"a photo of a coat &amp; a bag, {i}" for i in (0, 4, 7)),  # evenly spread
        *(f"sample {i} of noise" for i in (1, 2, 3)),
    ]
    for encoded, _ in images:
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").size == (32, 32)


def test_the_findings_follow_the_numbers(data: Path, report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "resnet at w2a4: mixup is the most accurate data-free source, 88.00% (87.50 to 88.50)" in page
    assert "28.00 points above noise, the next; the two intervals do not overlap" in page
    assert "mixup in 2. Its interval lies clear of the next source&#39;s in 2 of 2." in page
    assert "The log-sqrt2 softmax of vit is simulation only" in page
    assert "bag &lt;b&gt;" in page
    path = data / "evaluation/noise-resnet-w2a4/metrics.json"
    metrics = json.loads(path.read_text())
    write_json(path, {**metrics, "reconstructed": result(88.0, 95.0)})
    write_report(data, AXES, Report(samples=SAMPLES), report)
    page = (report / "index.html").read_text()
    assert "resnet at w2a4: mixup and noise tie as the most accurate data-free source" in page
    assert "mixup in 1, a tie in 1." in page


@pytest.mark.parametrize(
    "path",
    [
        "evaluation/float-vit/metrics.json",
        "evaluation/mixup-vit-w2a4/metrics.json",
        "evaluation/mixup-vit-w2a4/gap.csv",
        "quantized/noise-resnet-w2a4/blocks.csv",
        "quantized/mixup-resnet-w2a4/quantization.json",
        "preview/mixup-resnet/summary.json",
        "preview/mixup-resnet/samples.csv",
        "preview/noise-resnet/images.npy",
    ],
)
def test_an_absent_artifact_is_named_and_nothing_is_written(data: Path, path: str) -> None:
    (data / path).unlink()
    with pytest.raises(InputError, match=re.escape(path)) as error:
        write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    assert "dvc repro" in str(error.value)
    assert not (data / "report").exists()


def test_metrics_of_another_form_are_an_input_error(data: Path) -> None:
    write_json(data / "evaluation/float-vit/metrics.json", {"images": 100, "float": {"top1": "high"}})
    with pytest.raises(InputError, match=r"float-vit/metrics\.json: .*float\.top1"):
        write_report(data, AXES, Report(samples=SAMPLES), data / "report")


def test_bad_images_are_counted(report: Path) -> None:
    assert "Left out: 2 blank, 1 duplicate." in (report / "index.html").read_text()


def test_lineage_says_which_sources_are_data_free(report: Path) -> None:
    page = (report / "index.html").read_text()
    rows = re.findall(r"<tr><th>(\w+)</th>\s*<td>[^<]*→ calibration set</td>\s*<td>([^<]*)</td>", page)
    assert rows == [(source, "none") for source in AXES.sources]
