"""The choice of a source, where it is known which is better."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import edit_params

AXES = {"recipes": ["mixup"], "noise": ["noise"], "real": ["real"], "sources": ["noise", "mixup", "real"]}


@pytest.fixture
def cells(workspace: Path, stage: Callable[..., int]) -> Path:
    """The network of the source `mixup` has eight bits, that of `noise` two: mixup is bound to agree more."""
    axes = {f"axes.{key}": value for key, value in {**AXES, "models": ["resnet"], "precisions": ["w4a4"]}.items()}
    edit_params(workspace / "params.yaml", **axes, **{"choose.calibration": "auto"})
    assert stage("prompts", "mixup") == 0 and stage("synthesize", "mixup") == 0
    for source, images, bits in (("mixup", "rendered", 8), ("noise", "noise", 2), ("real", "real", 8)):
        assert stage("calibrate", source, "resnet", "--images", images) == 0
        sizes = {"precisions.w4a4.weight_bits": bits, "precisions.w4a4.activation_bits": bits}
        edit_params(workspace / "params.yaml", **sizes)
        assert stage("reconstruct", source, "resnet", "w4a4") == 0
    return workspace


def test_the_better_source_is_chosen(cells: Path, stage: Callable[..., int]) -> None:
    (cells / "world/test/labels-idx1-ubyte.gz").unlink()
    (cells / "world/real.tar").unlink()
    assert stage("choose") == 0, "labels and real images are not looked at"
    ranking = pd.read_csv(cells / "data/choice/ranking.csv").set_index("source")
    assert list(ranking.index) == ["noise", "mixup"], "real images do not compete"
    assert ranking["chosen"].to_dict() == {"noise": False, "mixup": True}
    assert ranking.loc["mixup", "agreement"] > ranking.loc["noise", "agreement"]
    assert (cells / ranking.loc["mixup", "checkpoint"] / "model.safetensors").exists()


def test_a_source_may_be_named(cells: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for source, others in (("noise", {"mixup": False}), ("real", {"noise": False, "mixup": False})):
        edit_params(cells / "params.yaml", **{"choose.calibration": source})
        assert stage("choose") == 0
        ranking = pd.read_csv(cells / "data/choice/ranking.csv").set_index("source")
        assert ranking["chosen"].to_dict() == {source: True, **others}
    edit_params(cells / "params.yaml", **{"choose.calibration": "best"})
    assert stage("choose") == 2
    assert "expected auto or one of noise, mixup, real" in capsys.readouterr().err
    axes = {"axes.recipes": [], "axes.sources": ["noise", "real"]}
    edit_params(cells / "params.yaml", **axes, **{"choose.calibration": "auto"})
    assert stage("choose") == 2
    assert "name a source instead" in capsys.readouterr().err
