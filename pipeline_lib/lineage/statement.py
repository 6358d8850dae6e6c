"""What is signed of a checkpoint: an in-toto statement of all that made it; and what differs from it now."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from pipeline_lib.artifacts.files import dvc_listing, sha256
from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.lineage.audit import run_audit
from pipeline_lib.lineage.pipeline import DVC_LOCK
from pipeline_lib.lineage.repository import CHECKPOINTS, Repository
from pipeline_lib.provenance.dvc_file import NO_REPOSITORY
from pipeline_lib.yaml_file import read_yaml

PREDICATE = "urn:mixup-class-prompts:lineage:1"  # a name and no address: docs/signing.md describes it
RECORDS, CODE = "data/provenance/", ("pipeline_lib/", "stages/")
NAMES_LISTED = 3  # in a message


def checkpoint_path(name: str) -> str:
    """The folder of a checkpoint, which may go by its name alone."""
    path = Path(name).as_posix()
    return path if "/" in path else f"{CHECKPOINTS}/{path}"


def state(repository: Repository, checkpoint: str) -> Statement:
    """The statement about a checkpoint, every file hashed now.

    Raises:
        InputError: no finished stage wrote this checkpoint.
        RunError: the audit fails.
    """
    stage = repository.checkpoints().get(checkpoint)
    if stage is None:
        known = ", ".join(repository.checkpoints()) or "none"
        raise InputError(f"{checkpoint}: no finished stage of dvc.lock wrote this checkpoint; there are {known}")
    audit = run_audit(repository, checkpoint)
    if audit.failed:
        failures = [p.artifact for check in audit.checks for p in check.problems if p.status == "FAIL"]
        raise RunError(
            f"{checkpoint}: expected an audit without a failure, found {_listed(failures)}; "
            f"`python -m pipeline_lib audit {checkpoint}` says why; nothing was signed"
        )
    entries = read_yaml(DVC_LOCK, NO_REPOSITORY)["stages"]
    stages = {name: {"lock": entries[name], "record": _record(entries[name])} for name in audit.stages}
    kinds = _kinds(stages)
    predicate = {
        "checkpoint": checkpoint,
        "real_images": next(verdict.text for verdict in audit.verdicts if verdict.checkpoint == checkpoint),
        "checks": audit.to_json()["checks"],
        "stages": stages,
        "artifacts": {
            path: {"kind": kind, "sha256": _digests(path)} for path, kind in kinds.items() if path != checkpoint
        },
    }
    subjects = [ResourceDescriptor(file, digest={"sha256": sha}).pb for file, sha in _digests(checkpoint).items()]
    statement = Statement(subjects, PREDICATE, predicate)
    statement.validate()
    return statement


def to_bytes(statement: Statement) -> bytes:
    """The statement as JSON."""
    return str(json_format.MessageToJson(statement.pb, indent=None, sort_keys=True)).encode()


def from_bytes(content: bytes) -> Statement:
    """The statement that JSON holds.

    Raises:
        RunError: it holds something else, or a statement of another type.
    """
    try:
        statement = Statement.copy_from_pb(json_format.Parse(content, StatementMessage()))
        statement.validate()
    except (json_format.ParseError, ValueError) as error:
        raise RunError(f"what is signed is no in-toto statement: {' '.join(str(error).split())}") from None
    if statement.pb.predicate_type != PREDICATE:
        raise RunError(f"expected a statement of the type {PREDICATE}, found {statement.pb.predicate_type}")
    return statement


def predicate_of(statement: Statement) -> dict[str, Any]:
    """What the statement says of its subjects, as plain values."""
    content: dict[str, Any] = json_format.MessageToDict(statement.pb.predicate)
    return content


def differences(statement: Statement, checkpoint: str) -> Iterator[str]:
    """What is not as it was when the statement was made: a line an artifact, the checkpoint first.

    Raises:
        RunError: the statement is about another checkpoint.
    """
    predicate = predicate_of(statement)
    if predicate["checkpoint"] != checkpoint:
        raise RunError(f"expected a statement about {checkpoint}, found one about {predicate['checkpoint']}")
    subjects = {subject.name: subject.digest["sha256"] for subject in statement.pb.subject}
    yield from _difference(checkpoint, "the checkpoint", subjects)
    for path, artifact in predicate["artifacts"].items():
        yield from _difference(path, artifact["kind"], artifact["sha256"])
    entries = read_yaml(DVC_LOCK, NO_REPOSITORY).get("stages", {})
    for stage, signed in predicate["stages"].items():
        if _as_signed(entries.get(stage, {})) != signed["lock"]:
            yield f"{DVC_LOCK}: the entry of {stage} is not the one that was signed"


def _difference(path: str, kind: str, signed: dict[str, str]) -> Iterator[str]:
    found = _digests(path)
    if not found:
        yield f"{path} ({kind}): absent; `dvc checkout` or `git checkout` restores it"
    elif found != signed:
        names = sorted(name for name in found.keys() | signed.keys() if found.get(name) != signed.get(name))
        yield f"{path} ({kind}): other bytes than were signed, in {_listed(names)}"


def _record(entry: dict[str, Any]) -> dict[str, Any]:
    """What a run recorded of itself; its audit passed, so the file is there."""
    return read_json(Path(next(out["path"] for out in entry["outs"] if out["path"].startswith(RECORDS))))


def _kinds(stages: dict[str, Any]) -> dict[str, str]:
    """What every path is that these stages wrote or read, by their records and dvc.lock."""
    kinds: dict[str, str] = {}
    for stage in stages.values():
        inputs: dict[str, Any] = stage["record"].get("inputs", {})
        code: dict[str, str] = stage["record"].get("code", {})
        declared = [dep["path"] for dep in stage["lock"].get("deps", [])]
        kinds |= {path: "code" if path.startswith(CODE) else "unknown" for path in declared}
        kinds |= dict.fromkeys(code, "code")
        kinds |= {path: read["kind"] for path, read in inputs.items()}
    outs = {out["path"] for stage in stages.values() for out in stage["lock"]["outs"]}
    return kinds | dict.fromkeys(sorted(outs), "made")


def _digests(path: str) -> dict[str, str]:
    """SHA-256 of a file, or of each file of a folder, by path from the root; empty where there is nothing."""
    place = Path(path)
    if place.is_dir():
        return {f"{path}/{file['relpath']}": file["md5"] for file in dvc_listing(place, sha256)}
    return {path: sha256(place)} if place.is_file() else {}


def _as_signed(values: dict[str, Any]) -> dict[str, Any]:
    """Plain values as a statement gives them back: its numbers are floating point."""
    message = Struct()
    message.update(values)
    content: dict[str, Any] = json_format.MessageToDict(message)
    return content


def _listed(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else ""
    return ", ".join(names[:NAMES_LISTED]) + more
