"""Code that nobody hashed has no effect, stops the stage, or is shown."""

import bisect
import json
import py_compile
import shutil
from collections.abc import Callable
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest

from tests.provenance.conftest import Run

PLANTED = "import pathlib; pathlib.Path('planted').touch()\n"


def record() -> dict[str, Any]:
    return dict(json.loads(Path("data/provenance/prompts/single.json").read_text()))


@pytest.mark.parametrize(
    "module", ["pipeline_lib/errors.py", "pipeline_lib/prompts/vocabulary.py", "stages/prompts.py"]
)
def test_bytecode_of_the_project_has_no_effect(project: Path, run: Run, module: str) -> None:
    altered = project / "altered.py"
    altered.write_text(PLANTED + Path(module).read_text())
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(altered), cache_from_source(module), doraise=True, invalidation_mode=unchecked)
    result = run()
    assert result.returncode == 0, result.stderr
    assert not Path("planted").exists()


def test_a_module_without_its_source_is_absent(project: Path, run: Run) -> None:
    module = Path("pipeline_lib/errors.py")
    py_compile.compile(str(module), "pipeline_lib/errors.pyc", doraise=True)
    module.unlink()
    assert "No module named 'pipeline_lib.errors'" in run().stderr


def test_a_folder_that_hides_a_module(project: Path, refused: Callable[..., None]) -> None:
    Path("pipeline_lib/errors").mkdir()
    shutil.copy("pipeline_lib/errors.py", "pipeline_lib/errors/__init__.py")
    refused("pipeline_lib/errors/__init__.py: hides pipeline_lib/errors.py")


def test_modules_that_hide_those_of_libraries_are_listed(project: Path, run: Run) -> None:
    Path("bisect.py").write_text(PLANTED + Path(bisect.__file__).read_text())
    result = run()
    assert result.returncode == 0, result.stderr
    assert Path("planted").exists(), "it ran"
    assert record()["foreign_code"] == [str(project / "bisect.py")]


def test_a_start_up_module_is_listed(project: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("path")
    (folder / "sitecustomize.py").touch()
    result = run(PYTHONPATH=str(folder))
    assert result.returncode == 0, result.stderr
    assert record()["foreign_code"] == [str(folder / "sitecustomize.py")]
    assert record()["environment"]["PYTHONPATH"] == str(folder)
