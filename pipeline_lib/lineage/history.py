"""What git has of the project's code at a commit."""

import hashlib
import subprocess
from functools import cached_property

from pipeline_lib.artifacts.files import digest_of_listing
from pipeline_lib.errors import InputError

CODE = ("pipeline_lib", "stages")
LEFT_OUT = (".pyc", ".gitignore")  # of DVC's listings of folders


def git(*arguments: str, given: bytes = b"") -> bytes | None:
    """What git prints; none where it fails. Objects count as they are, whatever `git replace` puts in their place."""
    command = ["git", "--no-replace-objects", *arguments]
    result = subprocess.run(command, input=given, capture_output=True, check=False)
    return result.stdout if result.returncode == 0 else None


def objects(identifiers: list[str]) -> list[bytes]:
    """The contents of git's objects, read by one process.

    Raises:
        InputError: git lacks one of them.
    """
    stream = git("cat-file", "--batch", given="".join(f"{name}\n" for name in identifiers).encode()) or b""
    contents, start = [], 0
    for name in identifiers:
        end = stream.find(b"\n", start)
        size = stream[start:end].split()[-1:]
        if not size or not size[0].isdigit():
            raise InputError(f"git lacks the object {name}; `git fsck` lists what is missing")
        contents.append(stream[end + 1 : end + 1 + int(size[0])])
        start = end + 1 + int(size[0]) + 1
    return contents


class History:
    """Digests of the code at commits, each object read once."""

    def __init__(self) -> None:
        self._commits: dict[str, dict[str, str] | None] = {}
        self._digests: dict[str, str] = {}  # by git's name of the object

    @cached_property
    def exists(self) -> bool:
        """Whether this is a repository of git."""
        return git("rev-parse", "--git-dir") is not None

    def code(self, commit: str) -> dict[str, str] | None:
        """MD5 by path, from here, of all code files of a commit; none if there is no such commit."""
        if commit not in self._commits:
            self._commits[commit] = self._read(commit)
        return self._commits[commit]

    def room(self, commit: str, folder: str) -> dict[str, str]:
        """MD5 by name of what DVC lists of a folder of code, at a commit that exists."""
        files = (self.code(commit) or {}).items()
        prefix = f"{folder}/"
        return {
            path.removeprefix(prefix): md5
            for path, md5 in files
            if path.startswith(prefix) and not path.endswith(LEFT_OUT)
        }

    def _read(self, commit: str) -> dict[str, str] | None:
        listed = git("ls-tree", "-r", "-z", f"{commit}^{{commit}}", "--", *CODE)
        if listed is None:
            return None
        names = {}
        for line in filter(None, listed.decode(errors="replace").split("\0")):
            mode, kind, name = line.partition("\t")[0].split()
            if kind == "blob" and mode != "120000":
                names[line.partition("\t")[2]] = name
        new = [name for name in dict.fromkeys(names.values()) if name not in self._digests]
        try:
            contents = objects(new)
        except InputError:
            return None
        self._digests.update(
            (name, hashlib.md5(content).hexdigest()) for name, content in zip(new, contents, strict=True)
        )
        return {path: self._digests[name] for path, name in names.items()}


def digest_of_room(files: dict[str, str]) -> str:
    """What dvc.lock has of a folder of these files, digests by name."""
    return digest_of_listing([{"md5": files[name], "relpath": name} for name in sorted(files)])
