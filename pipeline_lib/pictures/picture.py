"""A picture that is not read yet."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from PIL import Image

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.pictures.decode import decode


@dataclass(frozen=True)
class Picture:
    """A file of a folder, or of a tar."""

    key: str  # unique in its folder or tar
    name: str  # where it lies, for errors
    read: Callable[[], bytes]
    label: str = ""  # of its class, as it stands beside it; empty where nothing does
    classes: tuple[int, ...] = ()  # as a shard of this project names them

    def open(self) -> Image.Image:
        """RGB.

        Raises:
            InputError: it cannot be decoded.
        """
        return decode(self.read(), self.name)


@dataclass(frozen=True)
class Pictures:
    """What a folder or a tar holds."""

    pictures: list[Picture]
    skipped: Counter[str] = field(default_factory=Counter)  # other files, by suffix

    @property
    def words_on_skipped(self) -> str:
        """`; skipped: 2 hidden, 68 .txt`, or nothing."""
        counts = [f"{number} {kind}" for kind, number in sorted(self.skipped.items()) if number]
        return f"; skipped: {', '.join(counts)}" if counts else ""


def drawn(pictures: Iterable[Picture], namespace: str, seed: int) -> list[Picture]:
    """The pictures in an order drawn by their keys: its beginning is a sample of all, however they are sorted."""
    return sorted(pictures, key=lambda picture: seed_of(namespace, seed, picture.key))
