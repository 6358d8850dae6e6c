"""The code that each stage of dvc.yaml depends on, found from its imports and written into its `deps`.

The code stands at the end of a list in flow style, after a comment:

    deps: ["${task.classes}", # code
      pipeline_lib/errors.py, stages/prompts.py]

After `# code` modules are named one by one, so that an edit reruns only the stages that import it. After
`# code, by rooms` whole folders of pipeline_lib are named: an edit there reruns more, which costs nothing where a stage
finds its finished work again.
"""

import re
import textwrap
from collections import defaultdict
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.lineage.closure import closure, expand, undeclared
from pipeline_lib.provenance.dvc_file import DVC_YAML, NO_REPOSITORY, definition, script_of
from pipeline_lib.yaml_file import parse_yaml, read_yaml

WIDTH = 120  # columns of dvc.yaml
CODE_LIST = re.compile(r"(?P<comment># code(?P<by_rooms>, by rooms)?\n)(?P<indent> *)[^]]*\]")
STAGE = re.compile(r"^  ([\w-]+):", re.MULTILINE)
PARAMS = "pipeline_lib/params"  # a module a section of params.yaml: stages name only those that they read


def with_dependencies(root: Path) -> str:
    """The text of dvc.yaml below `root`, with the code of every stage as its imports have it; all else as it is.

    Raises:
        InputError: dvc.yaml is absent or not YAML; a stage runs no module of `stages`; or its `deps` lack the comment.
    """
    stages = read_yaml(root / DVC_YAML, NO_REPOSITORY)["stages"]
    text = (root / DVC_YAML).read_text(encoding="utf-8")

    def code_list(found: re.Match[str]) -> str:
        stage = STAGE.findall(text[: found.start()])[-1]
        script = _script(stage, definition(stages[stage])["cmd"], root)
        code = code_of(script, root, by_rooms=found["by_rooms"] is not None)
        return f"{found['comment']}{_wrapped(code, found['indent'])}]"

    result = CODE_LIST.sub(code_list, text)
    for stage, entry in parse_yaml(result, DVC_YAML)["stages"].items():
        missing = undeclared(_script(stage, definition(entry)["cmd"], root), definition(entry).get("deps", []), root)
        if missing:
            raise InputError(
                f"{DVC_YAML}: {stage} imports {missing[0].relative_to(root)}, which its deps lack; "
                "write `# code` at the end of a line in that list and its code is written behind it"
            )
    return result


def code_of(script: Path, root: Path, *, by_rooms: bool) -> list[str]:
    """The dependencies that cover what a script imports: paths from `root`, sorted.

    A room, a folder of pipeline_lib, is named whole if all of it is imported; if it holds files that are no modules, as
    no import says who reads those; and with `by_rooms` if any of it is imported. Of params, modules are always named.
    """
    names: set[Path] = set()
    rooms: dict[Path, set[Path]] = defaultdict(set)
    for module in closure(script, root):
        folders = module.relative_to(root).parts[:-1]
        if folders[0] == "pipeline_lib" and len(folders) > 1:
            rooms[root / folders[0] / folders[1]].add(module)
        else:
            names.add(module)
    for room, imported in rooms.items():
        whole = by_rooms or _holds_other_files(room) or imported == expand(str(room), root)
        names |= {room} if whole and room != root / PARAMS else imported
    return sorted(name.relative_to(root).as_posix() for name in names)


def _holds_other_files(room: Path) -> bool:
    return any(path.is_file() and path.suffix not in (".py", ".pyc") for path in room.rglob("*"))


def _script(stage: str, command: str, root: Path) -> Path:
    script = script_of(command)
    if script is None or not (root / script).exists():
        raise InputError(
            f"{DVC_YAML}: {stage} runs `{command}`; expected `python -m stages.NAME` and a module stages/NAME.py"
        )
    return root / script


def _wrapped(code: list[str], indent: str) -> str:
    width = WIDTH - len("]")
    return textwrap.fill(
        ", ".join(code), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
