"""Real `dvc repro` in a temporary clone, on the tiny world: what reruns, what is restored, what survives a kill."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, edit_params, tiny_params

ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
CELLS = {f"{source}-resnet-{precision}" for source in ("noise", "mixup") for precision in ("w4a4", "w2a4")}


def run(clone: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=clone, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def repro(clone: Path, *targets: str) -> set[str]:
    """Stages that ran; those restored from the run cache are not among them."""
    return set(re.findall(r"^Running stage '(.+)':", run(clone, "dvc", "repro", *targets), re.MULTILINE))


def cells(stage: str, precision: str = "") -> set[str]:
    return {f"{stage}@{cell}" for cell in CELLS if cell.endswith(precision)}


def outs(clone: Path, stage: str) -> dict[str, str]:
    """Digest by path of a stage's outs, provenance left out."""
    entry = yaml.safe_load((clone / "dvc.lock").read_text())["stages"][stage]
    return {out["path"]: out["md5"] for out in entry["outs"] if "provenance" not in out["path"]}


@pytest.fixture(scope="module")
def clone(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the working tree whose pipeline ran once: two recipes, noise, one network, two precisions."""
    clone = tmp_path_factory.mktemp("clone") / "repository"
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
    run(clone, "git", "add", "-A")
    run(clone, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "clone")
    everything = {"prompts@mixup", "synthesize@mixup", "calibrate@mixup-resnet", "calibrate-noise@noise-resnet"}
    everything |= {"evaluate-float@resnet", "report"} | cells("reconstruct") | cells("evaluate")
    assert repro(clone) == everything
    assert (clone / "data/report/leaderboard.csv").read_text().count("\n") == 1 + 1 + 2 * len(CELLS)
    assert repro(clone) == set(), "a second run has nothing to do"
    return clone


@pytest.fixture
def unchanged(clone: Path) -> Iterator[None]:
    """Puts the clone back, and with that shows that an earlier value is restored from the run cache, not run."""
    saved = {p: (clone / p).read_bytes() for p in ("params.yaml", "dvc.lock")}
    yield
    for name, content in saved.items():
        if name == "params.yaml":
            (clone / name).write_bytes(content)
    assert repro(clone) == set()
    assert yaml.safe_load((clone / "dvc.lock").read_text()) == yaml.safe_load(saved["dvc.lock"])


MIXUP_CELLS = {cell for cell in CELLS if cell.startswith("mixup")}
AFTER_CALIBRATION = {f"{stage}@{cell}" for stage in ("reconstruct", "evaluate") for cell in MIXUP_CELLS} | {"report"}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("key", "value", "reruns"),
    [
        (
            "prompts.mixup.seed",
            1,
            {"prompts@mixup", "synthesize@mixup", "calibrate@mixup-resnet"} | AFTER_CALIBRATION,
        ),
        ("synthesize.seed", 1, {"synthesize@mixup", "calibrate@mixup-resnet"} | AFTER_CALIBRATION),
        ("precisions.w2a4.weight_bits", 3, cells("reconstruct", "w2a4") | cells("evaluate", "w2a4") | {"report"}),
        ("reconstruct.seed", 1, cells("reconstruct") | cells("evaluate") | {"report"}),
        ("evaluate.confidence", 0.9, {"evaluate-float@resnet", "report"} | cells("evaluate")),
        ("runtime.workers", 1, set()),
    ],
)
def test_a_changed_parameter_reruns_what_follows_it(clone: Path, key: str, value: object, reruns: set[str]) -> None:
    edit_params(clone / "params.yaml", **{key: value})
    assert repro(clone) == reruns


@pytest.mark.parametrize(
    ("room", "module", "reruns"),
    [
        # A comment does not change the bytes: what follows an unchanged out does not run.
        ("synthesis", "plan.py", {"synthesize@mixup"}),
        ("quantization", "ranges.py", cells("reconstruct") | cells("evaluate") | {"evaluate-float@resnet"}),
    ],
)
def test_a_changed_line_of_code_reruns_the_stages_that_import_it(
    clone: Path, room: str, module: str, reruns: set[str]
) -> None:
    path = clone / "pipeline_lib" / room / module
    text = path.read_text()
    path.write_text(text + "# one line\n")
    assert repro(clone) == reruns
    path.write_text(text)
    assert repro(clone) == set()


@pytest.mark.parametrize(
    ("stage", "unit", "slower"),
    [
        ("synthesize@mixup", "*.tar", {"synthesize.seed": 5, "synthesize.steps": 40}),
        ("reconstruct@mixup-resnet-w2a4", "unit-*.json", {"reconstruct.seed": 5, "methods.tuned.iterations": 60}),
    ],
)
def test_killed_stage_is_continued_with_the_same_bytes(
    clone: Path, stage: str, unit: str, slower: dict[str, object]
) -> None:
    edit_params(clone / "params.yaml", **slower)
    name = stage.split("@")[0]
    process = subprocess.Popen(
        ["dvc", "repro", stage], cwd=clone, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((clone / ".work" / name).glob(f"*/units/{unit}")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill_children(process.pid)
    assert process.wait(60) != 0
    assert not (clone / next(iter(outs(clone, stage)))).exists(), "no half-written out"
    done = {p: p.stat().st_mtime_ns for p in (clone / ".work" / name).glob(f"*/units/{unit}")}
    assert done
    assert stage in repro(clone, stage)
    continued = outs(clone, stage)
    assert not list((clone / ".work" / name).glob("*/units"))

    run(clone, "dvc", "repro", "--force", "--single-item", "--no-run-cache", stage)
    assert outs(clone, stage) == continued


def kill_children(pid: int) -> None:
    """SIGKILL the stage that a running dvc started, and its shell, not dvc itself."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_children(int(child))
        os.kill(int(child), signal.SIGKILL)
