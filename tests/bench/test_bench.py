"""`python -m pipeline_lib bench`: what it compares computes the same, and the table is written."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.bench import eager, fakequant, reconstruct
from pipeline_lib.fakequant import operators

runner = CliRunner()
METHODS = ["methods", "resnet", "--precision", "w2a4", "--method", "adaround"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fakequant, "SHAPES", {"cpu": [(4, 8, 3, 3), (2, 3, 5, 7)]})
    monkeypatch.setattr(fakequant, "SECONDS", 0.001)
    monkeypatch.setattr(reconstruct, "REPEATS", 1)
    monkeypatch.setattr(reconstruct, "LONG_RUN", reconstruct.SHORT_RUN + 1)


def test_the_eager_chains_compute_what_the_operators_do() -> None:
    compared = set()
    for case in fakequant.cases(torch.device("cpu")):
        if case.operator == "fake_quant_drop":
            continue  # the mask is another
        theirs = getattr(eager, case.operator)(*case.variables, *case.constants)
        ours = getattr(operators, case.operator)(*case.variables, *case.constants)
        assert torch.allclose(theirs[0] if isinstance(theirs, tuple) else theirs, ours, rtol=1e-4, atol=1e-5)
        compared.add(case.operator)
    assert compared == {"fake_quant", "soft_round", "log_sqrt2_quant"}


def test_the_table_is_printed_and_written() -> None:
    result = runner.invoke(app, ["bench", "fakequant", "--out", "speed.csv"])
    assert result.exit_code == 0, result.output
    table = pd.read_csv("speed.csv")
    assert set(table["variant"]) >= {"eager chain", "torch.compile of the reference", "ours"}
    assert (table["ms"] > 0).all() and (table["share_of_copy_bandwidth"] > 0).all()
    assert "times_reference" in result.stdout


def test_every_unit_of_a_network_is_timed() -> None:
    arguments = ["--model", "test_vit", "--image-size", "32", "--out", "steps.csv"]
    result = runner.invoke(app, ["bench", "reconstruct", *arguments])
    assert result.exit_code == 0, result.output
    table = pd.read_csv("steps.csv")
    assert table["unit"].tolist() == ["patch_embed.proj", *(f"blocks.{i}" for i in range(6)), "head"]
    assert {"eager", "reference", "ours", "iterations_per_second", "hours_of_20000"} < set(table.columns)
    assert "all units, 20,000 iterations each:" in result.stdout


def test_methods_are_compared_over_seeds_and_what_is_there_is_not_done_again(workspace: Path) -> None:
    command = ["bench", "methods", "resnet", "--precision", "w2a4", "--method", "genie-m", "--iterations", "2"]
    result = runner.invoke(app, [*command, "--seeds", "1"])
    assert result.exit_code == 0, result.output
    (first,) = pd.read_csv("bench-methods.csv").to_dict("records")
    assert 0 <= first["top1"] <= 100 and first["seed"] == 0
    result = runner.invoke(app, [*command, "--method", "repq-vit", "--seeds", "2"])
    assert result.exit_code == 0, result.output
    table = pd.read_csv("bench-methods.csv")
    assert table.iloc[0].to_dict() == first, "times too"
    assert table.groupby("method")["seed"].apply(list).to_dict() == {"genie-m": [0, 1], "repq-vit": [0, 1]}
    nearest = table[table["method"] == "repq-vit"]
    assert (nearest["top1"] == nearest["nearest"]).all(), "repq-vit reconstructs nothing, whatever --iterations says"
    assert "spread" in result.stdout


def test_synthesis_is_held_against_the_plain_loop(workspace: Path) -> None:
    result = runner.invoke(app, ["bench", "synthesize", "--shards", "2"])
    assert result.exit_code == 0, result.output
    plain, ours = pd.read_csv("bench-synthesize.csv").to_dict("records")
    assert plain["images"] == ours["images"] == 8
    assert plain["ratio"] == 1
    assert ours["ratio"] == pytest.approx(ours["images_per_second"] / plain["images_per_second"])
    assert all(0 < row["outside_denoiser_percent"] < 100 and row["peak_memory_mib"] > 0 for row in (plain, ours))


@pytest.mark.parametrize(
    "arguments",
    [["fakequant", "--device", "tpu"], ["reconstruct", "--model", "resnet-18"], METHODS],
    ids=["device", "model", "method"],
)
def test_bad_arguments(workspace: Path, arguments: list[str]) -> None:
    result = runner.invoke(app, ["bench", *arguments])
    assert result.exit_code == 2
    assert "error:" in result.stderr
