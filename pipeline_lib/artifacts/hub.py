"""Where a generator is: in its folder, as a diffusers pipeline, or on the hub, as hub.json there says."""

import re
from pathlib import Path

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.reads import checked


def locate(folder: Path) -> tuple[str, str | None]:
    """What to pass to `from_pretrained`: a local pipeline folder, or the repository and revision in its hub.json.

    Raises:
        InputError: the folder is absent or incomplete, or hub.json names no commit of a repository of the hub.
    """
    hub, index = folder / "hub.json", folder / "model_index.json"
    if hub.exists():
        return _on_the_hub(hub)
    if not index.exists():
        raise InputError(
            f"{folder}: no generator here: expected model_index.json of a diffusers pipeline, or hub.json; "
            "`task.generator` in params.yaml names the folder"
        )
    for component, (library, _) in {k: v for k, v in read_json(index).items() if isinstance(v, list)}.items():
        if library and not (folder / component).is_dir():
            raise InputError(f"{folder}: incomplete generator: model_index.json names {component}/, which is absent")
    return str(checked(folder)), None


def _on_the_hub(hub: Path) -> tuple[str, str]:
    pointer = read_json(hub)
    repository, revision = str(pointer.get("repository", "")), str(pointer.get("revision", ""))
    if set(pointer) != {"repository", "revision"} or not re.fullmatch("[0-9a-f]{40}", revision):
        raise InputError(f"{hub}: expected `repository` and a `revision` of 40 hex digits, found {pointer}")
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*", repository):
        raise InputError(f"{hub}: expected a `repository` of the hub, OWNER/NAME, found {repository!r}")
    if Path(repository).exists():  # would be loaded in place of the hub's, at no revision, and DVC would not see it
        raise InputError(
            f"{hub}: expected a repository of the hub, but {repository} is a folder here; rename that, or let "
            "`task.generator` in params.yaml name it"
        )
    return repository, revision
