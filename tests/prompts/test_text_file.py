"""Class lists and captions of any bytes: read, or refused in one line."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.errors import InputError
from pipeline_lib.params.prompts import control_character
from pipeline_lib.prompts.captions import Caption, read_captions
from pipeline_lib.prompts.vocabulary import ClassName, read_vocabulary

CLASSES = [ClassName("bag", "", "n1"), ClassName("coat", ""), ClassName("coat", "")]
PIECES = ["index", "name", "synset", "definition", "prompt", "classes", "0", "1", "bag", "n01440764", "crane", ",", ";"]
PIECES += ["\n", "\r\n", "\r", '"', "\t", " ", "\0", "\x0b", "\u2028", "é", "\ufeff", "'", "{}", "\\", "٣", "9" * 5000]

text = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text()
beginnings = st.sampled_from(
    ["", "index,name\n0,", "index,name,definition\n0,bag,x\n1,", "index,synset\n0,", "prompt,classes\n"]
)
encoded = st.builds(
    lambda beginning, text, encoding: (beginning + text).encode(encoding, "surrogatepass"),
    beginnings,
    text,
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]),
)
Reader = Callable[[Path], Sequence[Any]]


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("classes.csv", read_vocabulary),
        ("captions.csv", lambda path: read_captions(path, CLASSES)),
        ("captions.txt", lambda path: read_captions(path, CLASSES)),
    ],
)
def test_any_bytes(name: str, reader: Reader) -> None:
    @settings(max_examples=150, deadline=None)
    @given(encoded | st.binary())
    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                found = reader(path)
            except InputError as error:
                found, said = None, str(error)
        if found is None:
            assert not control_character(said), "one line"
            assert said.startswith(str(path))
            return
        assert found
        for entry in found:
            words = entry.text if isinstance(entry, Caption) else entry.name
            assert words == words.strip() != ""
            assert not control_character(words)

    check()
