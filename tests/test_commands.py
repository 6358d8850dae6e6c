"""`python -m pipeline_lib`."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.params.everything import preset
from tests.conftest import ROOT

runner = CliRunner()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(preset("default"))
    git("init", "-q")
    git("add", "params.yaml")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "params")
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


def test_preset_is_written_and_back(repository: Path) -> None:
    for name in ("imagenet", "default"):
        assert runner.invoke(app, ["preset", name]).exit_code == 0
        assert (repository / "params.yaml").read_text() == preset(name)


def test_preset_never_overwrites_uncommitted_edits(repository: Path) -> None:
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("seed: 0", "seed: 1"))
    edited = params.read_text()
    result = runner.invoke(app, ["preset", "imagenet"])
    assert result.exit_code == 2
    assert "not committed" in result.stderr
    assert params.read_text() == edited
    git("add", "params.yaml")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "edit")
    assert runner.invoke(app, ["preset", "imagenet"]).exit_code == 0


def test_unknown_preset(repository: Path) -> None:
    result = runner.invoke(app, ["preset", "cifar"])
    assert result.exit_code == 2
    assert "there are default, imagenet" in result.stderr


def test_doctor(repository: Path) -> None:
    (repository / "data").symlink_to(ROOT / "data")
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "params.yaml: valid, 16 cells" in result.stdout
    assert "fake-quant operators on cpu: compiled, build" in result.stdout
    assert "fake-quant operators on cuda: " in result.stdout
    (repository / "params.yaml").write_text("task: {}\n")
    assert runner.invoke(app, ["doctor"]).exit_code == 2


def test_the_graph_resolves_with_the_imagenet_preset(repository: Path) -> None:
    assert runner.invoke(app, ["preset", "imagenet"]).exit_code == 0
    (repository / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    dvc = str(Path(sys.executable).parent / "dvc")
    subprocess.run([dvc, "init", "-q"], check=True)
    listed = subprocess.run([dvc, "stage", "list", "--name-only"], check=True, capture_output=True, text=True).stdout
    assert "reconstruct@mixup-vit_b-w2a4" in listed
    assert "real" not in listed.replace("calibrate-real", ""), "no real image unless axes.real asks for it"
    graph = subprocess.run([dvc, "dag", "--dot"], check=True, capture_output=True, text=True).stdout
    assert '"synthesize@mixup" -> "calibrate@mixup-deit_s"' in graph
