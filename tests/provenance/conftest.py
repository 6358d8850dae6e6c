"""A copy of the project whose stages run as processes of their own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def project(workspace: Path) -> Path:
    """The tiny world with the code and dvc.yaml; no git, and DVC is not asked."""
    for folder in ("pipeline_lib", "stages"):
        shutil.copytree(ROOT / folder, workspace / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", workspace)
    return workspace


@pytest.fixture
def run(project: Path) -> Run:
    """Run the stage `prompts single`, with more variables of the environment."""

    def run_stage(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **variables}
        command = [sys.executable, "-m", "stages.prompts", "single"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    return run_stage


@pytest.fixture
def refused(project: Path, run: Run) -> Callable[..., None]:
    """The stage ends with one line that says all of these, and records nothing."""

    def check(*said: str) -> None:
        result = run()
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
        assert [text for text in said if text not in result.stderr] == [], result.stderr
        assert not (project / "data/provenance").exists()

    return check


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
