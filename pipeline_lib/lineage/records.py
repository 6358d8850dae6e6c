"""What a stage recorded of its own run, read strictly: a file of another shape is no record."""

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline_lib.errors import InputError

FORMAT = 2
MADE = "made"  # by another stage
HARMLESS = ("text", "generator weights", "classifier weights")  # sources that a checkpoint without real images may have
REAL_IMAGES = ("real images", "labelled images")
STATED = "stated images"  # which are what the user says: nobody can check that

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{32}(\.dir)?$")]
CommitId = Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]


class Input(BaseModel):
    """Something that a stage read: its digest when the stage began, and what the stage takes it for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    digest: Digest
    kind: str


class Record(BaseModel):
    """The record of a finished run, data/provenance/STAGE/NAME.json; facts of single stages may follow."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    format: Literal[2]
    stage: str
    name: str
    dvc_stage: str | None  # as dvc.lock has it, `reconstruct@mixup-resnet-w2a4`
    cmd: str
    git_commit: CommitId | None
    git_clean: bool | None
    packages: dict[str, str]  # versions
    processor: str
    wall_seconds: float
    outs: dict[str, Digest]
    inputs: dict[str, Input]  # by path
    params: dict[str, Any]  # by dotted key of params.yaml
    code: dict[str, Digest]  # of every first-party module that was loaded, by path
    foreign_code: list[str]
    operators: dict[str, str] = {}  # digest of the compiled library, by device
    device: str = ""
    devices: dict[str, int] = {}  # shards by device
    images: int | None = None  # rendered

    @property
    def origins(self) -> list[str]:
        """What the user stated of the images that were read, for each path of them; empty where that is missing."""
        stated = [PurePosixPath(path).name for path, entry in self.inputs.items() if entry.kind == STATED]
        return [str((self.params.get(f"images.{name}") or {}).get("origin", "")) for name in stated]


def read_record(path: Path) -> Record:
    """The record at a path.

    Raises:
        InputError: absent, unreadable, or of another format; the message lacks the path.
    """
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"no record ({error.strerror}); `dvc checkout` or `dvc pull` brings it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise InputError(
            f"not a record of format {FORMAT}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}; `dvc checkout` "
            "restores an altered one, `dvc repro --force` writes those of earlier versions anew"
        ) from None
