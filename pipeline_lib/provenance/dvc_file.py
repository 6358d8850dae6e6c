"""The stages that dvc.yaml declares, each matrix expanded."""

import itertools
import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.yaml_file import read_yaml

DVC_YAML, PARAMS = Path("dvc.yaml"), Path("params.yaml")
NO_REPOSITORY = "run this in the repository, after `dvc repro`"
STAGE_KEYS = {"cmd", "deps", "params", "outs", "desc", "meta", "frozen", "always_changed", "foreach", "do", "matrix"}


@dataclass(frozen=True)
class Declared:
    """A stage as dvc.yaml has it, with today's params.yaml."""

    name: str
    command: str
    deps: list[str]
    params: list[str]  # dotted keys of params.yaml
    outs: list[str]
    frozen: bool

    @property
    def script(self) -> str | None:
        """Path of the module of `stages` that the command runs; none if it runs something else."""
        return script_of(self.command)


def script_of(command: str) -> str | None:
    """`stages/prompts.py` for `python -m stages.prompts mixup`; none for a command of another form."""
    found = re.match(r"python -m stages\.(\w+)", command)
    return f"stages/{found[1]}.py" if found else None


def definition(entry: dict[str, Any]) -> dict[str, Any]:
    """What an entry of dvc.yaml's `stages` says of each of its stages: of a `foreach`, what stands below `do`."""
    below: dict[str, Any] = entry.get("do", entry)
    return below


def lookup(values: Any, key: str) -> Any:
    """The value at a dotted key; none where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def declared_stages() -> dict[str, Declared]:
    """Every stage of dvc.yaml by its name, `evaluate@mixup-vit-w2a4` in a matrix.

    Raises:
        InputError: a file is absent or not YAML, or a stage has another form than those of this project.
    """
    params = read_yaml(PARAMS, NO_REPOSITORY)
    entries = read_yaml(DVC_YAML, NO_REPOSITORY).get("stages")
    if not isinstance(entries, dict):
        raise InputError(f"{DVC_YAML}: expected a mapping `stages`; `git checkout {DVC_YAML}` restores it")
    stages: dict[str, Declared] = {}
    for base, entry in entries.items():
        try:
            unknown = (entry.keys() | definition(entry).keys()) - STAGE_KEYS
            if unknown:
                raise InputError(f"{DVC_YAML}: {base} has `{unknown.pop()}`, which the audit does not follow")
            stages.update((stage.name, stage) for stage in _declared(base, entry, params))
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{DVC_YAML}: stage {base} is malformed ({error}); `git diff` shows what changed"
            ) from None
    return stages


def _declared(base: str, entry: dict[str, Any], params: dict[str, Any]) -> Iterator[Declared]:
    stage = definition(entry)
    for suffix, variables in _instances(entry, params):
        values = {**params, **variables}
        yield Declared(
            f"{base}@{suffix}" if suffix else base,
            command=_resolved(stage["cmd"], values),
            deps=[posixpath.normpath(_resolved(dep, values)) for dep in stage.get("deps", [])],
            params=[_resolved(key, values) for key in stage.get("params", [])],
            outs=[posixpath.normpath(_resolved(_path(out), values)) for out in stage.get("outs", [])],
            frozen=bool(stage.get("frozen", False)),
        )


def _path(out: Any) -> str:
    """The path of an out, which may have options."""
    return str(next(iter(out)) if isinstance(out, dict) else out)


def _instances(entry: dict[str, Any], params: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The stages of an entry: what follows the @ of the name, and its own variables, besides those of params.yaml.

    `foreach` has a stage for each key of a mapping, or each item of a list; `matrix` one for each combination.
    """
    if "foreach" in entry:
        items = _values(entry["foreach"], params)
        pairs = items.items() if isinstance(items, dict) else ((item, item) for item in items)
        for key, item in pairs:
            yield str(key), {"key": key, "item": item}
    elif "matrix" in entry:
        axes = {name: _values(values, params) for name, values in entry["matrix"].items()}
        for combination in itertools.product(*axes.values()):
            key = "-".join(map(str, combination))
            yield key, {"key": key, "item": dict(zip(axes, combination, strict=True))}
    else:
        yield "", {}


def _values(values: Any, params: dict[str, Any]) -> Any:
    """A list or mapping, written out or named as `${a.b}`; an empty list where params.yaml has none."""
    if isinstance(values, str):
        return lookup(params, values.strip("${}")) or []
    return values


def _resolved(text: str, values: dict[str, Any]) -> str:
    """The text with each `${a.b}` replaced by the value at this key."""
    return re.sub(r"\$\{([^}]+)\}", lambda found: str(lookup(values, found[1])), text)


def declared_for(command: list[str]) -> Declared | None:
    """The stage that runs this command line, by its words; none where there is no dvc.yaml.

    Raises:
        InputError: dvc.yaml has no such stage, or several.
    """
    if not DVC_YAML.exists():
        return None
    found = [stage for stage in declared_stages().values() if shlex.split(stage.command) == command]
    if len(found) != 1:
        names = " and ".join(stage.name for stage in found) or "none"
        raise InputError(
            f"{DVC_YAML}: expected one stage that runs `{shlex.join(command)}` with today's {PARAMS}, found {names}; "
            "`dvc repro` runs those that it declares"
        )
    return found[0]
