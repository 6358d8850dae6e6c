"""Which code ran in this process: the project's modules with their digests, and modules from elsewhere."""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline_lib.artifacts.files import md5
from pipeline_lib.errors import InputError

PROJECT = Path(os.path.abspath(__file__)).parents[2]
FIRST_PARTY = "pipeline_lib", "stages"  # folders of the project
_FIRST_PARTY = tuple(f"{PROJECT}/{folder}/" for folder in FIRST_PARTY)
START_UP = "sitecustomize", "usercustomize"  # modules that Python imports at its start, whoever wrote them


def library_folders() -> tuple[str, ...]:
    """The folders of the standard library and of installed packages, as named and without symbolic links."""
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")] + site.getsitepackages()
    return tuple({f"{spelled}/" for folder in folders for spelled in (folder, os.path.realpath(folder))})


def first_party_code() -> dict[str, str]:
    """MD5 by path from the project's root of its modules that are loaded, each `__init__.py` among them.

    The digest is that of the source that was compiled, where the loader of `stages` did.

    Raises:
        InputError: two files go by the name of a module.
    """
    code: dict[str, str] = {}
    for module, file in _files():
        if not file.startswith(_FIRST_PARTY):
            continue
        path, name = Path(file), os.path.relpath(file, PROJECT)
        if path.name == "__init__.py" and path.parent.with_suffix(".py").exists():
            shadowed = Path(name).parent.with_suffix(".py")
            raise InputError(f"{name}: hides {shadowed}, a module of the same name; delete or rename one of them")
        loader = getattr(vars(module).get("__spec__"), "loader", None)
        code[name] = getattr(loader, "md5", None) or md5(path)
    return dict(sorted(code.items()))


def foreign_code() -> list[str]:
    """The files of loaded modules neither of the project, nor of the standard library, nor of installed packages.

    A start-up module among the installed packages counts as foreign, for no package brings one.
    """
    libraries = library_folders()
    standard = os.path.realpath(os.path.dirname(os.__file__))
    foreign = set[str]()
    for module, file in _files():
        known = file.startswith(libraries) or os.path.realpath(file).startswith(libraries)
        starts_up = module.__name__ in START_UP and os.path.realpath(os.path.dirname(file)) != standard
        if starts_up or not (known or file.startswith(_FIRST_PARTY)):
            foreign.add(file)
    return sorted(foreign)


def _files() -> Iterator[tuple[ModuleType, str]]:
    """Each loaded module that has a file, and that file's absolute path."""
    for module in list(sys.modules.values()):
        attributes: dict[str, Any] = getattr(module, "__dict__", {})
        spec, file = attributes.get("__spec__"), attributes.get("__file__")
        if spec is not None and spec.has_location:
            file = spec.origin
        if isinstance(file, str) and (spec is not None or os.path.isabs(file)):
            yield module, os.path.abspath(file) if ".." in file or not os.path.isabs(file) else file
