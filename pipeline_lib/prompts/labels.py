"""Which class a label means: by index, name or synset, never by position."""

from collections import defaultdict
from collections.abc import Sequence

from pipeline_lib.prompts.vocabulary import ClassName


class Labels:
    """What may stand for a class: its index, its name, or its synset."""

    def __init__(self, classes: Sequence[ClassName]) -> None:
        self._count = len(classes)
        self._meanings: defaultdict[str, set[int]] = defaultdict(set)
        for index, entry in enumerate(classes):
            for text in (entry.name, entry.synset):
                if text:
                    self._meanings[_plain(text)].add(index)

    def index(self, text: str) -> int:
        """The class that a label means. `Ankle_boot` is `ankle boot`, and `007` is 7.

        Raises:
            ValueError: it means none, or several.
        """
        meant = set(self._meanings.get(_plain(text), ()))
        if text.isascii() and text.isdigit() and len(text) < 20 and int(text) < self._count:
            meant.add(int(text))
        if not meant:
            raise ValueError("no class")
        if len(meant) > 1:
            raise ValueError(f"any of the classes {', '.join(map(str, sorted(meant)))}")
        return meant.pop()

    @property
    def expected(self) -> str:
        """What a label may be, in words."""
        return f"an index from 0 to {self._count - 1}, a name or a synset of the class list"


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").casefold().split())
