"""A finished pipeline on the tiny world, made once by a real `dvc repro`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from tests.conftest import ROOT, tiny_params

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
CELLS = {f"{source}-resnet-{precision}" for source in ("noise", "mixup") for precision in ("w4a4", "w2a4")}


def run(clone: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=clone, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def repro(clone: Path, *targets: str) -> set[str]:
    """Stages that ran; those restored from the run cache are not among them."""
    return set(re.findall(r"^Running stage '(.+)':", run(clone, "dvc", "repro", *targets), re.MULTILINE))


def commit(clone: Path, message: str) -> None:
    run(clone, "git", "add", "-A")
    run(clone, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)


def cells(stage: str, precision: str = "") -> set[str]:
    return {f"{stage}@{cell}" for cell in CELLS if cell.endswith(precision)}


def outs(clone: Path, stage: str) -> dict[str, str]:
    """Digest by path of a stage's outs, provenance left out."""
    entry = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][stage]
    return {out["path"]: out["md5"] for out in entry["outs"] if "provenance" not in out["path"]}


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree, to be copied, whose pipeline ran once: a recipe, noise, a network."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # which the processes of a parallel run have in common
    with FileLock(shared / "finished.lock"):
        clone = shared / "finished"
        if not clone.exists():
            _finish(world, shared / "unfinished")
            (shared / "unfinished").rename(clone)
    return clone


def _finish(world: Path, clone: Path) -> None:
    files = run(ROOT, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, files):
        if name.startswith("data/fashion/") and name != "data/fashion/classes.csv":
            continue
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, clone / name)
    shutil.copytree(world, clone / "world")
    (clone / "dvc.lock").unlink(missing_ok=True)
    params = tiny_params()
    params["axes"].update(
        recipes=["mixup"],
        noise=["noise"],
        real=[],
        sources=["noise", "mixup"],
        models=["resnet"],
        precisions=["w4a4", "w2a4"],
    )
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    run(clone, "git", "init", "-q")
    commit(clone, "clone")
    everything = {
        "prompts@single",
        "prompts@mixup",
        "synthesize@mixup",
        "calibrate@mixup-resnet",
        "calibrate-noise@noise-resnet",
    }
    everything |= {"evaluate-float@resnet", "choose", "report"} | cells("reconstruct") | cells("evaluate")
    assert repro(clone) == everything
    assert (clone / "data/report/leaderboard.csv").read_text().count("\n") == 1 + 1 + 2 * len(CELLS)
    assert repro(clone) == set(), "a second run has nothing to do"
    commit(clone, "finished")
