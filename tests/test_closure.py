"""What a stage imports stands in dvc.yaml, written by a command, and imports point downward."""

import ast
from pathlib import Path

import pytest

from pipeline_lib.lineage.closure import closure, imports, undeclared
from pipeline_lib.lineage.dependencies import with_dependencies
from pipeline_lib.provenance.dvc_file import definition, script_of
from pipeline_lib.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[1]
DVC_YAML = ROOT / "dvc.yaml"
STAGES = {name: definition(entry) for name, entry in read_yaml(DVC_YAML, "")["stages"].items()}
MAY_IMPORT = {
    "params": set(),
    "artifacts": set(),
    "pictures": {"artifacts"},
    "provenance": {"params", "artifacts"},
    "prompts": {"params", "artifacts"},
    "execution": {"params", "artifacts"},
    "synthesis": {"params", "artifacts", "execution"},
    "models": {"params", "artifacts"},
    "calibration": {"params", "artifacts", "pictures", "models"},
    "fakequant": set(),
    "quantization": {"params", "artifacts", "models", "calibration", "fakequant"},
    "evaluation": {"params", "artifacts", "pictures", "prompts", "models", "calibration", "quantization"},
    "cells": {"params", "artifacts", "calibration", "quantization"},
    "choice": {"params", "artifacts", "models", "calibration", "quantization"},
    "study": {"params", "artifacts", "prompts", "models", "calibration", "quantization", "evaluation", "cells"},
    "bench": {
        "params",
        "artifacts",
        "prompts",
        "execution",
        "synthesis",
        "models",
        "calibration",
        "fakequant",
        "quantization",
        "evaluation",
        "cells",
    },
    "report": {"params", "artifacts"},
    "doctor": {
        "params",
        "artifacts",
        "pictures",
        "prompts",
        "synthesis",
        "models",
        "quantization",
        "evaluation",
    },
    "lineage": {"params", "artifacts", "provenance", "synthesis"},
    "commands": {
        "params",
        "artifacts",
        "prompts",
        "models",
        "fakequant",
        "lineage",
        "provenance",
        "bench",
        "doctor",
        "quantization",
    },
}
GROUND = {"command", "errors", "progress", "reads", "yaml_file"}  # modules that every room may import


def script(stage: str) -> Path:
    return ROOT / str(script_of(STAGES[stage]["cmd"]))


def test_dvc_yaml_is_what_the_command_would_write() -> None:
    assert DVC_YAML.read_text() == with_dependencies(ROOT), "`python -m pipeline_lib dependencies --write`"


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_cover_the_imports(stage: str) -> None:
    code = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("pipeline_lib/", "stages/"))]
    assert not undeclared(script(stage), code, ROOT)
    rooms = {module.relative_to(ROOT).parts[1] for module in closure(script(stage), ROOT)}
    assert {Path(dep).parts[1] for dep in code} == rooms, "a room of which nothing is imported"


def test_nobody_renders_again_because_rounding_changed() -> None:
    assert not [dep for dep in STAGES["synthesize"]["deps"] if "quantization" in dep or "fakequant" in dep]


def test_a_float_network_is_evaluated_without_quantization() -> None:
    modules = closure(script("evaluate-float"), ROOT)
    assert not [module for module in modules if module.is_relative_to(ROOT / "pipeline_lib/quantization")]


def test_dvc_yaml_can_be_read_in_a_minute() -> None:
    lines = DVC_YAML.read_text().splitlines()
    assert len(lines) < 250
    assert max(map(len, lines)) <= 120


def test_package_inits_hold_a_docstring_alone() -> None:
    """But for the operators', which say what is public, and that of the stages, which says how modules are loaded."""
    inits = set(ROOT.glob("pipeline_lib/**/__init__.py"))
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
