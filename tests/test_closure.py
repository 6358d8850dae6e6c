"""A stage's declared code dependencies are exactly the first-party modules it imports."""

import ast
from pathlib import Path

import pytest
import yaml

from pipeline_lib.lineage.closure import closure, expand, imports

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MAY_IMPORT = {
    "params": set(),
    "artifacts": set(),
    "prompts": {"params", "artifacts"},
    "execution": {"params", "artifacts"},
    "synthesis": {"params", "artifacts", "execution"},
    "models": {"params"},
    "calibration": {"params", "artifacts", "models"},
    "fakequant": set(),
    "bench": {"params", "artifacts", "synthesis", "models", "calibration", "fakequant", "quantization", "evaluation"},
    "quantization": {"params", "artifacts", "models", "fakequant"},
    "evaluation": {"params", "artifacts", "models", "quantization"},
    "choice": {"params", "artifacts", "models", "quantization"},
    "study": {"params", "artifacts", "models", "calibration", "quantization", "evaluation"},
    "report": {"params", "artifacts"},
    "lineage": {"params", "artifacts", "synthesis"},
    "commands": {"params", "artifacts", "prompts", "synthesis", "models", "fakequant", "lineage", "bench"},
}
GROUND = {"command", "errors", "progress", "yaml_file"}  # modules that every room may import


def shortest(files: set[Path]) -> list[str]:
    """The same files as dvc.yaml would name them: a whole room as its folder."""
    named = set()
    for file in files:
        room = file.parent
        whole = room.parent.name == "pipeline_lib" and expand(str(room), ROOT) <= files
        named.add(str((room if whole else file).relative_to(ROOT)))
    return sorted(named)


@pytest.mark.parametrize("stage", STAGES)
def test_declared_code_is_the_import_closure(stage: str) -> None:
    module = STAGES[stage]["cmd"].split()[2]
    needed = closure(ROOT / Path(*module.split(".")).with_suffix(".py"), ROOT)
    code = [d for d in STAGES[stage]["deps"] if d.startswith(("pipeline_lib/", "stages/"))]
    declared = {file for dep in code for file in expand(dep, ROOT)}
    assert declared == needed, f"dvc.yaml should list {shortest(needed)}"


def test_package_inits_hold_a_docstring_alone() -> None:
    """But for the operators', which say what is public; all of their room is a dependency of whoever reads it."""
    inits = {*ROOT.glob("pipeline_lib/**/__init__.py"), ROOT / "stages/__init__.py"}
    for path in inits - {ROOT / "pipeline_lib/fakequant/__init__.py"}:
        body = ast.parse(path.read_text()).body
        assert len(body) == 1 and isinstance(body[0], ast.Expr), path


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_downward(room: str) -> None:
    for path in (ROOT / "pipeline_lib" / room).rglob("*.py"):
        for imported in imports(path, ROOT):
            parts = imported.relative_to(ROOT).parts
            assert parts[0] == "pipeline_lib", f"{path} imports {imported}"
            home = Path(parts[1]).stem
            assert home in {room} | MAY_IMPORT[room] | GROUND, f"{path} imports {imported}"


def test_every_room_is_listed() -> None:
    assert {p.parent.name for p in ROOT.glob("pipeline_lib/*/__init__.py")} == set(MAY_IMPORT)


def test_these_stages_load_without_torch() -> None:
    """Importing torch costs seconds and these stages do not need it."""
    for stage in ("prompts", "calibrate", "report"):
        for path in closure(ROOT / "stages" / f"{stage}.py", ROOT):
            top_level = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
            names = {a.name for n in top_level if isinstance(n, ast.Import) for a in n.names}
            names |= {n.module or "" for n in top_level if isinstance(n, ast.ImportFrom)}
            heavy = {name for name in names if name.split(".")[0] in ("torch", "timm", "diffusers", "webdataset")}
            assert not heavy, f"{path} imports {heavy}"
