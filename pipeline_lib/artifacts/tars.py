"""Reading tars in WebDataset's layout: the files of a sample stand together and share its key."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Member:
    """A file in a tar: where its content begins, and how long it is."""

    tar: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Its content."""
        with self.tar.open("rb") as file:
            return self.read_from(file)

    def read_from(self, tar: BinaryIO) -> bytes:
        """Its content, from the open tar.

        Raises:
            tarfile.TarError: the tar has become shorter.
        """
        tar.seek(self.offset)
        content = tar.read(self.size)
        if len(content) != self.size:
            raise tarfile.ReadError("unexpected end of data")
        return content


class StrangeMember(tarfile.ReadError):
    """The tar is whole, and holds what is no file of a sample."""


def read_tar(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of an uncompressed tar, in order: the key, and the content of each file by its extension.

    As in WebDataset a key ends at the first dot after the last slash: `a/b.c.jpg` is the file `c.jpg` of sample `a/b`.
    tarfile, unlike WebDataset's own reader, raises an error where a file is cut short.

    Raises:
        OSError: the tar cannot be read.
        tarfile.TarError: it is truncated or damaged, or holds what is no file of a sample.
    """
    with path.open("rb") as file:
        for key, members in index_tar(path):
            yield key, {extension: member.read_from(file) for extension, member in members.items()}


def index_tar(path: Path, hidden: list[str] | None = None) -> Iterator[tuple[str, dict[str, Member]]]:
    """As `read_tar`, with where the files lie in place of their contents.

    `hidden` gets the names of files that begin with a dot; without it they are an error.
    """
    _check_end(path)
    try:
        with tarfile.open(path, "r:") as tar:
            for key, files in groupby(_files(tar, path, hidden), key=lambda file: file[0]):
                sample: dict[str, Member] = {}
                for _, extension, member in files:
                    if extension in sample:
                        raise StrangeMember(f"{key}.{extension} comes twice")
                    sample[extension] = member
                yield key, sample
            _check_rest(path, tar.offset)
    except (ValueError, OverflowError) as error:  # of numbers in headers, which tarfile passes on
        raise tarfile.ReadError(f"a header that is none: {error}") from None


def _files(tar: tarfile.TarFile, path: Path, hidden: list[str] | None) -> Iterator[tuple[str, str, Member]]:
    """Key, extension and place of each file."""
    for member in tar:
        if member.isdir():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, dot, extension = name.partition(".")
        if hidden is not None and dot and not stem:
            hidden.append(member.name)
            continue
        if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in member.name):
            raise StrangeMember(f"unexpected member {os.fsencode(member.name)!r}, whose name is not UTF-8")
        if any(ord(letter) < 32 for letter in member.name):
            raise StrangeMember(f"unexpected member {member.name!r}, whose name has a control character")
        if not (member.isreg() and not member.issparse() and stem and dot):
            raise StrangeMember(f"unexpected member {member.name}, expected files KEY.EXTENSION")
        yield folder + slash + stem, extension, Member(path, member.offset_data, member.size)


def _check_end(path: Path) -> None:
    """A tar that was cut between two files still reads as a tar; only the two blocks of zeros at its end are gone."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        if size < 2 * tarfile.BLOCKSIZE or size % tarfile.BLOCKSIZE or any(file.read()):
            raise tarfile.ReadError("no end of archive")


def _check_rest(path: Path, end: int) -> None:
    """What comes after the first block of zeros, as in tars that were joined, tarfile does not read."""
    with path.open("rb") as file:
        file.seek(end)
        while block := file.read(1 << 20):
            if any(block):
                raise tarfile.ReadError("more follows the end of the archive, as where tars were joined")
