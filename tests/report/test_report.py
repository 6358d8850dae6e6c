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

from pipeline_lib.artifacts.records import read_json, write_json
from pipeline_lib.errors import InputError
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.report.confusion import confusion
from pipeline_lib.report.leaderboard import FloatMetrics
from pipeline_lib.report.page import write_report
from pipeline_lib.report.sources import origin
from tests.report.conftest import AXES, SAMPLES, result


def test_the_same_inputs_give_the_same_bytes(data: Path, report: Path) -> None:
    first = {path.name: path.read_bytes() for path in report.iterdir()}
    write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    assert {path.name: path.read_bytes() for path in (data / "report").iterdir()} == first
    assert sorted(first) == ["curves.csv", "index.html", "leaderboard.csv", "metrics.json"]


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


def test_metrics_are_top1_by_model_precision_and_source(report: Path) -> None:
    assert read_json(report / "metrics.json") == {
        "resnet": {"float": 90.0, "w2a4": {"mixup": 88.0, "noise": 60.0}},
        "vit": {"float": 80.0, "w2a4": {"mixup": 78.0, "noise": 50.0}},
    }


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
        *(f"a photo of a coat &amp; a bag, {i}" for i in (8, 9)),  # left out
        *(f"sample {i} of noise" for i in (1, 2, 3)),
        *(f"coat 1, {source}, {model} at w2a4" for model in ("resnet", "vit") for source in ("mixup", "noise")),
    ]
    for encoded, _ in images:
        assert Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").size == (32, 32)


def test_samples_say_their_scores_and_why_they_were_left_out(report: Path) -> None:
    page = (report / "index.html").read_text()
    captions = re.findall(r"<figcaption>(a photo.*?)\s*</figcaption>", page, re.DOTALL)
    prompt = "a photo of a coat &amp; a bag, "
    assert captions == [
        f"{prompt}0",
        f"{prompt}4<small>pixel deviation 71.6</small><small>log likelihood -2</small>",
        f"{prompt}7",
        f"{prompt}8 <b>blank</b>",
        f"{prompt}9 <b>near-duplicate of &lt;3&gt;</b>",
    ]


def test_flipped_images_say_what_they_are_taken_for(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert page.count("coat<small>float: coat</small><small>quantized: <b>bag &lt;b&gt;</b></small>") == 4


def test_curves_are_thinned_and_units_equally_wide(report: Path) -> None:
    table = pd.read_csv(report / "curves.csv")
    assert list(table) == ["model", "precision", "source", "unit", "position", "loss", "gradient_norm"]
    cell = table[(table.model == "vit") & (table.source == "noise")]
    assert cell.groupby("unit", sort=False).size().to_dict() == {"conv1": 20, "layer1.0": 7, "fc": 20, "network": 20}
    assert cell.groupby("unit", sort=False).position.max().tolist() == [1, 2, 3, 4]
    assert cell.gradient_norm.iloc[0] == pytest.approx(300 * (1 + 1 / 2 + 1 / 3) / 3, rel=1e-4)


def test_every_chart_is_there_and_named(report: Path) -> None:
    page = (report / "index.html").read_text()
    for model in ("resnet", "vit"):
        for chart in (
            "Norm of the gradient along reconstruction",
            "Divergence of each layer quantized alone",
            "Histograms of conv1",
            "Histograms of fc &lt;x&gt;",
        ):
            assert page.count(f'aria-label="{chart}, {model} at w2a4"') == 1


def test_calibration_images_are_compared_with_labelled_ones_where_that_is_known(data: Path, report: Path) -> None:
    assert "against labelled ones" not in (report / "index.html").read_text()
    path = data / "evaluation/noise-resnet-w2a4/metrics.json"
    fidelity = {"kernel_distance": 0.01234, "recall": None}
    write_json(path, {**json.loads(path.read_text()), "calibration": fidelity})
    write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    page = (data / "report/index.html").read_text()
    assert page.count("Calibration images against labelled ones</h2>") == 1
    assert "<th>kernel distance</th><th>recall</th>" in page
    assert "<tr><th>noise</th><td>0.01234</td><td>\u2013</td></tr>" in page


def test_what_was_chosen_without_labels_is_held_against_the_best(report: Path) -> None:
    page = re.sub(r"\s+", " ", (report / "index.html").read_text())
    row = '<tr><th>{} at w2a4</th> <td class="left wrap">mixup 81.2, noise 82.5</td> <td>2</td><td class="left">{}</td>'
    row += "<td>{}</td> <td>{}</td></tr>"
    assert row.format("resnet", "mixup", "88.00", "+0.00") in page
    assert row.format("vit", "noise", "50.00", "-28.00") in page


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
    write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    page = (data / "report/index.html").read_text()
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
        "preview/mixup-resnet/dropped.npy",
        "quantized/noise-resnet-w2a4/curves.csv",
        "evaluation/noise-resnet-w2a4/sensitivity.csv",
        "evaluation/mixup-resnet-w2a4/histograms.json",
        "evaluation/noise-resnet-w2a4/predictions.csv",
        "evaluation/noise-resnet-w2a4/flipped.csv",
        "choice/ranking.csv",
        "evaluation/noise-resnet-w2a4/flipped.npy",
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
    assert "Left out: 2 blank, 1 near-duplicate." in (report / "index.html").read_text()


def test_lineage_says_which_sources_are_data_free(report: Path) -> None:
    page = (report / "index.html").read_text()
    rows = re.findall(r"<tr><th>(\w+)</th>\s*<td[^>]*>[^<]*→ calibration set</td>\s*<td>([^<]*)</td>", page)
    assert rows == [(source, "none") for source in AXES.sources]


def test_origin_of_every_kind_of_source() -> None:
    axes = Axes(
        recipes=["mixup"],
        treated=["mixup"],
        treatments=["filtered"],
        noise=["noise"],
        distilled=["distilled"],
        real=["real"],
        images=[],
        sources=["mixup", "mixup-filtered", "noise", "distilled", "real"],
        models=["resnet"],
        precisions=["w2a4"],
    )
    assert {source: origin(axes, source).split(" → ")[:2] for source in axes.sources} == {
        "mixup": ["class names", "prompts"],
        "mixup-filtered": ["data/synthetic/mixup", "treat (filtered)"],
        "noise": ["seeded noise", "calibration set"],
        "distilled": ["the classifier alone", "distilled images"],
        "real": ["real images", "calibration set"],
    }


def test_confusions_are_counted_against_the_float_network() -> None:
    predictions = pd.DataFrame({"label": [0, 0, 2, 2], "float": [0, 0, 0, 2], "reconstructed": [0, 2, 0, 5]})
    changed = confusion(predictions, ["coat", "", "bag", "", "", "hat"])
    assert changed.classes == ["coat", "bag", "hat"]
    assert changed.counts.tolist() == [[-1, 1, 0], [0, -1, 1], [0, 0, 0]]
    assert [(c.label, c.predicted, c.number) for c in changed.largest()] == [("coat", "bag", 1), ("bag", "hat", 1)]
    assert [changed.shade(number) for number in (1, 0, -1)] == ["more4", "", "less4"]


def test_many_classes_are_listed_by_their_largest_change() -> None:
    labels = np.arange(21).repeat(2)
    predictions = pd.DataFrame({"label": labels, "float": labels, "reconstructed": [1, 1, *labels[2:]]})
    changed = confusion(predictions, [f"c{i}" for i in range(21)])
    assert not changed.tabular
    assert [(c.label, c.predicted, c.number) for c in changed.largest()] == [("c0", "c1", 2)]


def test_classes_of_one_name_are_told_apart() -> None:
    metrics = FloatMetrics.model_validate({"images": 1, "classes": ["crane", "kite", "crane"], "float": result(50.0)})
    assert metrics.names == ["crane (0)", "kite", "crane (2)"]


def test_a_method_without_iterations_has_no_curves(data: Path) -> None:
    for curves in (data / "quantized").glob("*/curves.csv"):
        curves.write_text("unit,iteration,loss,gradient_norm\n")
    write_report(data, AXES, Report(samples=SAMPLES), data / "report")
    assert len(pd.read_csv(data / "report/curves.csv")) == 0
