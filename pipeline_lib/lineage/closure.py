"""Which first-party modules a script imports, read from the source: DVC does not look."""

import ast
from collections.abc import Iterable
from pathlib import Path


def imports(path: Path, root: Path) -> set[Path]:
    """First-party files below `root` that a module imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        stems = [root / Path(*name.split(".")) for name in names]
        found |= {file for stem in stems for file in (stem.with_suffix(".py"), stem / "__init__.py") if file.exists()}
    return found


def closure(path: Path, root: Path) -> set[Path]:
    """The module and all first-party ones that it imports, directly or not; the docstrings of packages left out."""
    seen, todo = set[Path](), {path}
    while todo:
        file = todo.pop()
        seen.add(file)
        todo |= imports(file, root) - seen
    return {file for file in seen if file.name != "__init__.py"}


def expand(dependency: str, root: Path) -> set[Path]:
    """The modules of a dependency, a file or a folder."""
    path = root / dependency
    files = path.rglob("*.py") if path.is_dir() else [path]
    return {file for file in files if file.name != "__init__.py"}


def undeclared(script: Path, dependencies: Iterable[str], root: Path) -> list[Path]:
    """The modules that a script imports, itself among them, and that no dependency names or holds."""
    declared = {module for dependency in dependencies for module in expand(dependency, root)}
    return sorted(closure(script, root) - declared)
