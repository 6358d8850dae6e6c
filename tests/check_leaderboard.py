"""What the default leaderboard must show. CI runs it after `make repro`; its name keeps it out of plain `pytest`."""

from pathlib import Path

import pandas as pd

AXES = {"source": ["noise", "single", "mixup", "real"], "model": ["resnet", "vit"], "precision": ["w4a4", "w2a4"]}
TABLE = pd.read_csv(Path(__file__).resolve().parents[1] / "data/report/leaderboard.csv")


def top1(model: str, precision: str, source: str, method: str) -> float:
    row = TABLE.query("model == @model and precision == @precision and source == @source and method == @method")
    assert len(row) == 1, (model, precision, source, method)
    return float(row["top1"].item())


def test_rows() -> None:
    cells = len(AXES["source"]) * len(AXES["model"]) * len(AXES["precision"])
    assert len(TABLE) == len(AXES["model"]) + 2 * cells
    assert TABLE["top1"].between(TABLE["top1_low"], TABLE["top1_high"]).all()


def test_reconstruction_beats_nearest_at_two_bits() -> None:
    for model in AXES["model"]:
        for source in AXES["source"]:
            reconstructed, nearest = (top1(model, "w2a4", source, m) for m in ("reconstructed", "nearest"))
            assert reconstructed > nearest, (model, source)


def test_real_beats_noise() -> None:
    for model in AXES["model"]:
        for precision in AXES["precision"]:
            real, noise = (top1(model, precision, source, "reconstructed") for source in ("real", "noise"))
            assert real > noise, (model, precision)


def test_float_is_the_upper_bound() -> None:
    for model in AXES["model"]:
        best = TABLE.query("model == @model and method != 'float'")["top1"].max()
        assert top1(model, "float", "-", "float") >= best - 1, model
