"""What a stage did not declare it cannot read."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.reads import Reads, checked, only
from tests.conftest import edit_params
from tests.provenance.conftest import edit


@pytest.mark.parametrize(
    "statement",
    [
        'Path("world/real.tar").read_bytes()',
        'open("world/../world/real.tar", "rb+").close()',
        'import os; os.open("world/real.tar", os.O_RDONLY)',
        'import numpy; numpy.memmap("world/real.tar", mode="r")',
        'import contextlib\n        with contextlib.suppress(Exception): Path("world/real.tar").read_bytes()',
        'Path("link").symlink_to("world/real.tar"); Path("link").read_bytes()',
        'from pipeline_lib.reads import checked; checked(Path("world/real.tar"))',
    ],
)
def test_a_stage_that_reads_what_it_does_not_declare(
    project: Path,
    refused: Callable[..., None],
    statement: str,
) -> None:
    before = "        surroundings ="
    edit(project / "stages/prompts.py", before, f"        {statement}\n{before}")
    refused("world/real.tar: prompts@single reads this file, which is none of its inputs")
    assert not (project / "data/prompts/single.jsonl").exists() or "suppress" in statement


def test_a_path_named_in_params_outside_of_the_project(
    project: Path,
    refused: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    real = (project / "world/real.tar").rename(tmp_path_factory.mktemp("elsewhere") / "real.tar")
    edit_params(project / "params.yaml", **{"task.real": str(real)})
    statement = f'Path("{real}").read_bytes()'
    before = "        surroundings ="
    edit(project / "stages/prompts.py", before, f"        {statement}\n{before}")
    refused(f"{real}: prompts@single reads this file")


def test_a_link_out_of_a_declared_folder(
    workspace: Path, stage: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    card = workspace / "world/classifiers/resnet/model.json"
    card.rename(workspace / "elsewhere.json")
    card.symlink_to(workspace / "elsewhere.json")
    assert stage("calibrate", "noise", "resnet", "--images", "noise") == 2
    assert (
        "elsewhere.json: python -m stages.calibrate noise resnet --images noise reads this" in capsys.readouterr().err
    )
    assert card.read_text(), "the process may read again what it likes"


def test_outs_and_files_elsewhere_may_be_read(tmp_path_factory: pytest.TempPathFactory, workspace: Path) -> None:
    Path("out").write_text("x")
    Path(".out.temporary").write_text("x")
    with only(Reads("work", [Path()], [Path("world/test")], [Path("out")])):
        for name in ("out", ".out.temporary", "world/test/labels-idx1-ubyte.gz", sys.executable):
            assert Path(name).read_bytes()
        assert checked(Path("world/test")) == Path("world/test")
        with Path("new").open("w+") as file:
            file.write("x")
    with pytest.raises(InputError, match="world/real.tar: work reads"), only(Reads("work", [Path()], [], [])):
        checked(Path("world/real.tar"))
    assert checked(Path("world/real.tar")) == Path("world/real.tar"), "no stage runs now"
