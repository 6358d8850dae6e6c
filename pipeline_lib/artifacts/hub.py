"""Where a generator is: in its folder, as a diffusers pipeline, or on the hub, as hub.json there says."""

import re
from collections.abc import Iterable
from pathlib import Path

from pipeline_lib.artifacts.records import read_json
from pipeline_lib.errors import InputError
from pipeline_lib.reads import checked

SAFETY_CHECK = {"safety_checker", "feature_extractor"}  # components that are not loaded unless params ask for it


def locate(folder: Path, needs: Iterable[str] | None = None) -> tuple[str, str | None]:
    """What to pass to `from_pretrained`: a local pipeline folder, or the repository and revision in its hub.json.

    needs: the components that must be there, all but those of the safety check if it is not given.

    Raises:
        InputError: the folder is absent or incomplete, or hub.json names no commit of a repository of the hub.
    """
    hub = folder / "hub.json"
    if hub.exists():
        return _on_the_hub(hub)
    for component in sorted(set(components(folder)) - SAFETY_CHECK if needs is None else set(needs)):
        if not (folder / component).is_dir():
            raise InputError(
                f"{folder}: incomplete generator: model_index.json names {component}/, which is absent; copy it there"
            )
    return str(checked(folder)), None


def components(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of a generator's components by name, as its model_index.json says, on the hub if it is there.

    Raises:
        InputError: there is no such file, or it is not as diffusers writes it.
    """
    index = _index(folder)
    found: dict[str, tuple[str, str]] = {}
    for name, value in read_json(index).items():
        if isinstance(value, list):
            if len(value) != 2 or not all(isinstance(part, str | None) for part in value):
                raise InputError(f"{index}: expected `{name}` to be [library, class], found {value}")
            library, kind = value
            if library and kind:
                found[name] = library, kind
    return found


def pipeline_class(folder: Path) -> str:
    """The class of a generator's pipeline, as its model_index.json says.

    Raises:
        InputError: as `components`, or it names none.
    """
    index = _index(folder)
    name = read_json(index).get("_class_name")
    if not isinstance(name, str):
        raise InputError(f"{index}: expected the name of a pipeline of diffusers at `_class_name`, found {name!r}")
    return name


def _index(folder: Path) -> Path:
    hub, index = folder / "hub.json", folder / "model_index.json"
    if hub.exists():
        from huggingface_hub import hf_hub_download

        repository, revision = _on_the_hub(hub)
        try:
            return Path(hf_hub_download(repository, index.name, revision=revision))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{hub}: cannot read {index.name} of {repository}: {' '.join(str(error).split())}"
            ) from None
    if not index.exists():
        raise InputError(
            f"{folder}: no generator here: expected model_index.json of a diffusers pipeline, or hub.json; "
            "`task.generator` in params.yaml names the folder"
        )
    return index


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
