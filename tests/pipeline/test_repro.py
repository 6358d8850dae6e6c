"""Real `dvc repro` in a temporary clone, on the tiny world: what reruns, what is restored, what survives a kill."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import edit_params
from tests.pipeline.conftest import CELLS, ENVIRONMENT, cells, outs, repro, run


@pytest.fixture(scope="module")
def clone(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("repro") / "repository", symlinks=True))


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
LAST = {"choose", "report"}
AFTER_CALIBRATION = {f"{stage}@{cell}" for stage in ("reconstruct", "evaluate") for cell in MIXUP_CELLS} | LAST


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
        ("precisions.w2a4.weight_bits", 3, cells("reconstruct", "w2a4") | cells("evaluate", "w2a4") | LAST),
        ("reconstruct.seed", 1, cells("reconstruct") | cells("evaluate") | LAST),
        ("evaluate.confidence", 0.9, {"evaluate-float@resnet", "report"} | cells("evaluate")),
        ("evaluate.compared", 20, {"evaluate-float@resnet", "report"} | cells("evaluate")),
        ("runtime.workers", 1, set()),
    ],
)
def test_a_changed_parameter_reruns_what_follows_it(clone: Path, key: str, value: object, reruns: set[str]) -> None:
    edit_params(clone / "params.yaml", **{key: value})
    assert repro(clone) == reruns


def test_an_experiment_sets_numbers_as_dvc_writes_them(clone: Path) -> None:
    stage = "reconstruct@mixup-resnet-w2a4"
    before = outs(clone, stage)
    run(clone, "dvc", "exp", "run", "-S", "methods.tuned.learning_rate_bias=1e-5", stage)
    assert outs(clone, stage) != before
    run(clone, "git", "checkout", "-q", "params.yaml")
    assert stage not in repro(clone), "its earlier outs come from the run cache"


def test_edited_captions_rerun_their_own_recipe_alone(clone: Path) -> None:
    saved = (clone / "params.yaml").read_bytes()
    captions = clone / "captions.txt"
    captions.write_text("a shoe\na bag\n")
    mine = {"strategy": "file", "reads": "captions.txt", "count": 24}
    edit_params(clone / "params.yaml", **{"prompts.mine": mine, "axes.recipes": ["mixup", "mine"]})
    own = {"prompts@mine", "synthesize@mine", "calibrate@mine-resnet"}
    assert repro(clone) >= own
    captions.write_text("a shoe\na bag on a table\n")
    ran = repro(clone)
    assert own <= ran
    assert ran - own <= {"choose", "report"}, "which look at the images of all recipes"
    (clone / "params.yaml").write_bytes(saved)
    captions.unlink()
    repro(clone)


@pytest.mark.parametrize(
    ("room", "module", "reruns"),
    [
        # A comment does not change the bytes: what follows an unchanged out does not run.
        ("synthesis", "plan.py", {"synthesize@mixup"}),
        ("quantization", "ranges.py", cells("reconstruct") | cells("evaluate") | {"choose"}),
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

    def finished_units() -> set[Path]:
        """Of work that is under way: published work stays until the next."""
        paths = (clone / ".work" / name).glob(f"*/units/{unit}")
        return {path for path in paths if not (path.parents[1] / "published").exists()}

    process = subprocess.Popen(
        ["dvc", "repro", stage], cwd=clone, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not finished_units():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    kill_children(process.pid)
    assert process.wait(60) != 0
    assert not (clone / next(iter(outs(clone, stage)))).exists(), "no half-written out"
    assert finished_units()
    assert stage in repro(clone, stage)
    continued = outs(clone, stage)
    assert not finished_units()

    run(clone, "dvc", "repro", "--force", "--single-item", "--no-run-cache", stage)
    assert outs(clone, stage) == continued


def kill_children(pid: int) -> None:
    """SIGKILL the stage that a running dvc started, and its shell, not dvc itself."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_children(int(child))
        os.kill(int(child), signal.SIGKILL)
