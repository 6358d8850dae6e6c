"""The runs that dvc.lock records, beside the stages that dvc.yaml declares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.provenance.dvc_file import (
    DVC_YAML,
    NO_REPOSITORY,
    PARAMS,
    Declared,
    declared_stages,
    definition,
    lookup,
    script_of,
)
from pipeline_lib.yaml_file import read_yaml

__all__ = [
    "DVC_LOCK",
    "DVC_YAML",
    "NO_REPOSITORY",
    "PARAMS",
    "Declared",
    "Run",
    "declared_stages",
    "definition",
    "finished_runs",
    "lookup",
    "script_of",
]

DVC_LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Run:
    """A stage's last finished run, as dvc.lock has it: digests by path, values by dotted key."""

    name: str
    deps: dict[str, str]
    params: dict[str, Any]
    outs: dict[str, str]


def finished_runs() -> dict[str, Run]:
    """The runs of dvc.lock by stage, in the order of dvc.lock.

    Raises:
        InputError: there is none, or it is not YAML.
    """
    stages = read_yaml(DVC_LOCK, NO_REPOSITORY).get("stages") or {}
    return {
        name: Run(
            name,
            {dep["path"]: dep["md5"] for dep in entry.get("deps", [])},
            dict(entry.get("params", {}).get(str(PARAMS), {})),
            {out["path"]: out["md5"] for out in entry.get("outs", [])},
        )
        for name, entry in stages.items()
    }
