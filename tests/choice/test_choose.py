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
    for source, bits in (("mixup", 8), ("noise", 2), ("real", 8)):
        assert stage("calibrate", source, "resnet") == 0
        sizes = {"precisions.w4a4.weight_bits": bits, "precisions.w4a4.activation_bits": bits}
        edit_params(workspace / "params.yaml", **sizes)
        assert stage("reconstruct", source, "resnet", "w4a4") == 0
    return workspace


def test_the_better_source_is_chosen_and_delivered(cells: Path, stage: Callable[..., int]) -> None:
    (cells / "world/test/labels-idx1-ubyte.gz").unlink()
    assert stage("choose") == 0, "labels are not looked at"
    ranking = pd.read_csv(cells / "data/chosen/ranking.csv").set_index("source")
    assert list(ranking.index) == ["noise", "mixup"], "real images do not compete"
    assert ranking["chosen"].to_dict() == {"noise": False, "mixup": True}
    assert ranking.loc["mixup", "agreement"] > ranking.loc["noise", "agreement"]
    for name in ("model.safetensors", "quantization.json"):
        delivered = cells / "data/chosen/resnet-w4a4" / name
        assert delivered.read_bytes() == (cells / "data/quantized/mixup-resnet-w4a4" / name).read_bytes()


def test_a_source_may_be_named(cells: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for source in ("noise", "real"):
        edit_params(cells / "params.yaml", **{"choose.calibration": source})
        assert stage("choose") == 0
        delivered = cells / "data/chosen/resnet-w4a4/model.safetensors"
        assert delivered.read_bytes() == (cells / f"data/quantized/{source}-resnet-w4a4/model.safetensors").read_bytes()
    edit_params(cells / "params.yaml", **{"choose.calibration": "best"})
    assert stage("choose") == 2
    assert "expected auto or one of noise, mixup, real" in capsys.readouterr().err
