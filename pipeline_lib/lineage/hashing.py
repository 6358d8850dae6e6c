"""Digests of files on the disk, each file's bytes read once however many names it has."""

from pathlib import Path

from pipeline_lib.artifacts.files import digest_of_listing, dvc_listing, md5


class Hasher:
    """MD5 as DVC computes it, remembered by inode: a cache of hard links is not read twice."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], str] = {}  # digests by device and inode
        self.bytes = 0  # read so far

    def file(self, path: Path) -> str:
        """Digest of a file."""
        status = path.stat()
        key = status.st_dev, status.st_ino
        if key not in self._known:
            self._known[key] = md5(path)
            self.bytes += status.st_size
        return self._known[key]

    def listing(self, path: Path) -> dict[str, str]:
        """Digest by name of the files of a folder."""
        return {entry["relpath"]: entry["md5"] for entry in dvc_listing(path, self.file)}

    def path(self, path: Path) -> str:
        """Digest of a file or folder, as dvc.lock has it; of what cannot be read, why, which is no digest."""
        try:
            return digest_of_listing(dvc_listing(path, self.file)) if path.is_dir() else self.file(path)
        except OSError as error:
            return f"unreadable ({error.strerror})"
