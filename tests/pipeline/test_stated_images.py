"""Images that were rendered elsewhere: a source of their own, whose origin the user states and nobody can check."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import edit_params
from tests.pictures.writing import put
from tests.pipeline.conftest import ENVIRONMENT, commit, outs, repro, run

SAID = "rendered by another program from its own prompts"


@pytest.fixture(scope="module")
def brought(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = Path(shutil.copytree(finished, tmp_path_factory.mktemp("stated") / "clone", symlinks=True))
    for number in range(26):
        put(clone / f"data/images/mine/{number // 13}/{number}.png", number)
    (clone / "data/images/mine/notes.txt").write_text("x")
    edit_params(
        clone / "params.yaml",
        **{
            "axes.images": ["mine"],
            "axes.sources": ["noise", "mixup", "mine"],
            "images": {"mine": {"origin": SAID}},
        },
    )
    ran = repro(clone)
    cells = {f"{stage}@mine-resnet-{bits}" for stage in ("reconstruct", "evaluate") for bits in ("w4a4", "w2a4")}
    assert ran == cells | {"calibrate-stated@mine-resnet"} | {"choose", "report"}
    commit(clone, "with images of somebody else")
    return clone


def verdicts(clone: Path) -> dict[str, str]:
    found = json.loads(run(clone, "python", "-m", "pipeline_lib", "audit", "--json"))
    assert not found["failed"]
    return {Path(verdict["checkpoint"]).name: verdict["text"] for verdict in found["real_images"]}


def test_the_verdict_says_whose_word_it_is(brought: Path) -> None:
    found = verdicts(brought)
    for bits in ("w4a4", "w2a4"):
        assert found.pop(f"mine-resnet-{bits}") == f"cannot be said: stated by the user to be {SAID}"
    assert set(found.values()) == {"none"}
    page = (brought / "data/report/index.html").read_text()
    assert "images that were rendered elsewhere" in page and "cannot be said" in page


def test_an_edit_reruns_this_source_alone(brought: Path) -> None:
    before = outs(brought, "calibrate-stated@mine-resnet")
    put(brought / "data/images/mine/0/3.png", 99)
    ran = repro(brought)
    assert {stage for stage in ran if "mine" not in stage} <= {"choose", "report"}
    assert "calibrate-stated@mine-resnet" in ran
    assert outs(brought, "calibrate-stated@mine-resnet") != before


def test_another_statement_is_another_verdict(brought: Path) -> None:
    edit_params(brought / "params.yaml", images={"mine": {"origin": "photographs, to be honest"}})
    assert "calibrate-stated@mine-resnet" in repro(brought)
    assert verdicts(brought)["mine-resnet-w4a4"].endswith("stated by the user to be photographs, to be honest")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": {}}, "no key `images.mine`"),
        ({"images": {"mine": {"origin": ""}}}, "`images.mine.origin` is ''"),
        ({"images": {"mine": {"origin": "a\nb"}}}, "`images.mine.origin`"),
        ({"task.images": "world/test"}, "labelled (world/test) and images (world/test) overlap"),
    ],
)
def test_what_is_refused(
    brought: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: object,
    changes: dict,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(brought / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").unlink(missing_ok=True)
    monkeypatch.chdir(tmp_path)
    edit_params(tmp_path / "params.yaml", **changes)
    assert stage("calibrate", "mine", "resnet", "--images", "stated") == 2
    assert said in capsys.readouterr().err


def test_pictures_that_are_labelled_ones_fail(brought: Path, tmp_path: Path) -> None:
    clone = Path(shutil.copytree(brought, tmp_path / "clone", symlinks=True))
    edit_params(clone / "params.yaml", **{"task.labelled": "data/test", "evaluate.fraction": 1.0})
    for number in range(10):
        put(clone / f"data/test/{number}/{number}.png", number)
    shutil.copy(clone / "data/test/3/3.png", clone / "data/images/mine/harmless.png")
    repro(clone)
    found = subprocess.run(
        [sys.executable, "-m", "pipeline_lib", "audit"], cwd=clone, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert found.returncode == 1
    assert "FAIL data/images/mine/harmless.png: stated images" in found.stdout
    assert "of data/quantized/mine-resnet-w4a4: cannot be said, because" in found.stdout


def test_a_link_to_other_inputs_is_refused(brought: Path, tmp_path: Path) -> None:
    clone = Path(shutil.copytree(brought, tmp_path / "clone", symlinks=True))
    shutil.rmtree(clone / "data/images/mine")
    (clone / "data/images/mine").symlink_to(clone / "world/test")
    result = subprocess.run(
        [sys.executable, "-m", "pipeline_lib", "doctor"], cwd=clone, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "which overlaps with `task.labelled`" in result.stderr
