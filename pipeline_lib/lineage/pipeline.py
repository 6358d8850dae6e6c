"""The stages that dvc.yaml declares, each matrix expanded, and the runs that dvc.lock records."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.yaml_file import read_yaml

DVC_YAML, DVC_LOCK, PARAMS = Path("dvc.yaml"), Path("dvc.lock"), Path("params.yaml")
NO_REPOSITORY = "run this in the repository, after `dvc repro`"


@dataclass(frozen=True)
class Declared:
    """A stage as dvc.yaml has it, with today's params.yaml."""

    name: str
    deps: list[str]
    params: list[str]  # dotted keys of params.yaml
    outs: list[str]
    frozen: bool

    @property
    def script(self) -> str:
        """The stage's script, among its dependencies."""
        return next((dep for dep in self.deps if dep.startswith("stages/") and dep != "pipeline_lib/command.py"), "")


@dataclass(frozen=True)
class Run:
    """A stage's last finished run, as dvc.lock has it: digests by path, values by dotted key."""

    name: str
    deps: dict[str, str]
    params: dict[str, Any]
    outs: dict[str, str]


def lookup(values: Any, key: str) -> Any:
    """The value at a dotted key; none where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def declared_stages() -> dict[str, Declared]:
    """Every stage of dvc.yaml by its name, `evaluate@mixup-vit-w2a4` in a matrix.

    Raises:
        InputError: a file is absent or not YAML.
    """
    params = read_yaml(PARAMS, NO_REPOSITORY)
    stages: dict[str, Declared] = {}
    for base, stage in read_yaml(DVC_YAML, NO_REPOSITORY)["stages"].items():
        for item in _items(stage.get("matrix", {}), params):
            name = f"{base}@{'-'.join(map(str, item.values()))}" if item else base
            deps, keys, outs = (
                [_resolved(_path(entry), item, params) for entry in stage.get(field, [])]
                for field in ("deps", "params", "outs")
            )
            stages[name] = Declared(name, deps, keys, outs, bool(stage.get("frozen", False)))
    return stages


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


def _path(entry: Any) -> str:
    """The path of an out, which may have options."""
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def _items(matrix: dict[str, Any], params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    axes = {
        name: lookup(params, values.strip("${}")) or [] if isinstance(values, str) else values
        for name, values in matrix.items()
    }
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination, strict=True))


def _resolved(text: str, item: dict[str, Any], params: dict[str, Any]) -> str:
    """The text with `${item.x}` and `${a.b}` replaced."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(lookup({**params, "item": item}, found[1])), text)
