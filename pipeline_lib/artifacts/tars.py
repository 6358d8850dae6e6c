"""Reading tars in WebDataset's layout: the files of a sample stand together and share its key."""

import tarfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of an uncompressed tar, in order: the key, and the content of each file by its extension.

    As in WebDataset a key ends at the first dot after the last slash: `a/b.c.jpg` is the file `c.jpg` of sample `a/b`.
    tarfile, unlike WebDataset's own reader, raises an error where a file is cut short.

    Raises:
        OSError: the tar cannot be read.
        tarfile.TarError: it is truncated or damaged, or holds what is no file of a sample.
    """
    _check_end(path)
    with tarfile.open(path, "r:") as tar:
        for key, files in groupby(_files(tar), key=lambda file: file[0]):
            sample: dict[str, bytes] = {}
            for _, extension, content in files:
                if extension in sample:
                    raise tarfile.ReadError(f"{key}.{extension} comes twice")
                sample[extension] = content
            yield key, sample


def _files(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
    """Key, extension and content of each file."""
    for member in tar:
        if member.isdir():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        file = tar.extractfile(member) if member.isreg() else None
        if file is None or not (stem and dot):
            raise tarfile.ReadError(f"unexpected member {member.name}")
        content = file.read()
        if len(content) != member.size:
            raise tarfile.ReadError("unexpected end of data")
        yield folder + slash + stem, extension, content


def _check_end(path: Path) -> None:
    """A tar that was cut between two files still reads as a tar; only the two blocks of zeros at its end are gone."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        if size < 2 * tarfile.BLOCKSIZE or size % tarfile.BLOCKSIZE or any(file.read()):
            raise tarfile.ReadError("no end of archive")
