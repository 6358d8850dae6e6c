"""Text that users bring, as text editors and spreadsheets save it."""

import codecs
import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.errors import InputError
from pipeline_lib.params.prompts import control_character

BYTE_ORDER_MARKS = {  # of UTF-32 before those of UTF-16, which they begin with
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; every line ends with a newline.

    what: the file as a message calls it, with the key of params.yaml that names it.

    Raises:
        InputError: the file is absent, a folder, in another encoding, or has control characters.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: is no file; expected {what}")
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: not found; expected {what}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; expected {what}") from None
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8":
            before = content[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
            found = f"other bytes at {error.start} (0x{content[error.start]:02x}, line {before + 1})"
        else:
            found = f"{encoding.upper()} with other bytes at {error.start}"
        raise InputError(f"{path}: expected text in UTF-8, found {found}; save the file as UTF-8") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), 1):
        strange = control_character(line.replace("\t", ""))
        if strange:
            hint = "save the file as UTF-8" if strange == "\0" else "remove it"  # UTF-16 without a mark is full of NUL
            raise InputError(f"{path}:{number}: found the control character U+{ord(strange):04X}; {hint}")
    return text


def read_table(path: Path, what: str, layouts: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file, each with FILE:LINE before it, fields by column; blank lines are no rows.

    what: as of `read_text`; layouts: the columns that a file may have, with commas between, in any order.

    Raises:
        InputError: as `read_text`; the columns are none of the layouts, or a row has not a field a column.
    """
    reader = csv.reader(io.StringIO(read_text(path, what), newline=""), strict=True, skipinitialspace=True)
    rows, header = [], list[str]()
    try:
        for record in reader:
            fields, where = [field.strip() for field in record], f"{path}:{reader.line_num}"
            if not any(fields) and len(fields) <= 1:
                continue
            if not header:
                header = fields
                if sorted(header) not in [sorted(layout.split(",")) for layout in layouts]:
                    found = ",".join(header)
                    found = repr(found) if control_character(found) else found  # tabs, where commas should stand
                    raise InputError(f"{path}: expected the columns {' or '.join(layouts)}, found {found[:200]}")
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"{where}: another number of fields than columns: expected {len(header)} ({','.join(header)}), "
                    f'found {len(fields)}; text with commas stands in quotes: "one, two"'
                )
            for column, field in zip(header, fields, strict=True):
                if control_character(field):
                    raise InputError(f"{where}: a line break or tab in the {column}; write it on one line")
            rows.append((where, dict(zip(header, fields, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    return rows
