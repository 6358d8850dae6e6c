"""The runs that dvc.lock records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline_lib.artifacts.dvc_cache import LockedFile, LockedStage, malformed
from pipeline_lib.errors import InputError
from pipeline_lib.provenance.dvc_file import NO_REPOSITORY, PARAMS
from pipeline_lib.yaml_file import read_yaml

DVC_LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Run:
    """A stage's last finished run, as dvc.lock has it: digests by path, values by dotted key."""

    name: str
    command: str
    deps: dict[str, str]
    params: dict[str, Any]
    outs: dict[str, str]


def finished_runs() -> tuple[dict[str, Run], dict[str, str]]:
    """The runs of dvc.lock by stage, in its order; and of the entries that are malformed, what is wrong with each.

    Raises:
        InputError: there is no dvc.lock, or it is not YAML.
    """
    entries = read_yaml(DVC_LOCK, NO_REPOSITORY).get("stages") or {}
    if not isinstance(entries, dict):
        raise InputError(f"{DVC_LOCK}: expected a mapping `stages`; `git checkout {DVC_LOCK}` restores it")
    runs: dict[str, Run] = {}
    faults: dict[str, str] = {}
    for name, content in entries.items():
        try:
            entry = LockedStage.model_validate(content)
            runs[str(name)] = Run(
                str(name),
                entry.cmd,
                _digests(entry.deps),
                entry.params.get(str(PARAMS), {}),
                _digests(entry.outs),
            )
        except ValidationError as error:
            faults[str(name)] = malformed(error)
        except InputError as error:
            faults[str(name)] = str(error)
    return runs, faults


def _digests(files: list[LockedFile]) -> dict[str, str]:
    digests = {file.path: file.md5 for file in files}
    for file in files:
        if digests[file.path] != file.md5:
            raise InputError(f"{file.path} has two digests")
    return digests
