"""One script a stage: `python -m stages.NAME`, as dvc.yaml calls them.

While a stage runs, the project's modules are compiled from their sources. Python would take bytecode from `__pycache__`
for a source of the same second and size, or for any at all if it is marked unchecked.
"""

import hashlib
import sys
from importlib.machinery import FileFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

PROJECT = Path(__file__).parents[1]
FOLDERS = PROJECT / "pipeline_lib", PROJECT / "stages"  # of first-party modules


class SourceLoader(SourceFileLoader):
    """Reads no bytecode, writes none, and keeps the MD5 of the source that was compiled."""

    md5: str

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 the importer's argument
        """The module compiled from its source."""
        source = self.get_data(self.path)
        self.md5 = hashlib.md5(source).hexdigest()
        return self.source_to_code(source, self.path)


def _is_of_project(folder: str) -> bool:
    path = Path(folder or ".").absolute()
    return path == PROJECT or any(path.is_relative_to(first_party) for first_party in FOLDERS)


def _finder(folder: str) -> FileFinder:
    """The finder of modules in a folder of the project; others are left to Python's own."""
    if not _is_of_project(folder):
        raise ImportError
    return FileFinder(folder or ".", (SourceLoader, [".py"]))


sys.path_hooks.insert(0, _finder)
for known in filter(_is_of_project, list(sys.path_importer_cache)):
    del sys.path_importer_cache[known]  # Python's own finder, made before this
