"""Small pictures for tests, each with a colour of its own."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def colour(number: int) -> tuple[int, int, int]:
    return (number * 20 % 256, 100, 200)


def picture(number: int, size: int = 8) -> Image.Image:
    return Image.new("RGB", (size, size), colour(number))


def png(number: int) -> bytes:
    content = io.BytesIO()
    picture(number).save(content, "PNG")
    return content.getvalue()


def put(path: Path, number: int) -> Path:
    """Write a picture, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path, lossless=True) if path.suffix == ".webp" else picture(number).save(path)
    return path


def shows(image: Image.Image, number: int) -> bool:
    return tuple(np.asarray(image)[0, 0].tolist()) == colour(number)
