"""From the bytes of a picture to RGB, whatever its format."""

import io
import warnings
from functools import cache

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline_lib.errors import InputError, one_line, refusing

BACKGROUND = (255, 255, 255)  # what shows through transparent pixels: white, as on a page
LONGEST = 1000  # times the shorter side: a longer picture would fill the memory when the shorter side is resized
NOT_DECODED = {
    "BUFR",
    "EPS",
    "GRIB",
    "HDF5",
    "MPEG",
    "WMF",
}  # Pillow knows these, and needs other programs to read them


@cache
def picture_suffixes() -> frozenset[str]:
    """Endings of the files that Pillow can read, in lower case, with their dot."""
    every = Image.registered_extensions().items()
    return frozenset(suffix for suffix, format_ in every if format_ in Image.OPEN and format_ not in NOT_DECODED)


def decode(content: bytes, name: str) -> Image.Image:
    """A picture as RGB with 8 bits; of several frames the first.

    16-bit greys are scaled to 8 bits; transparent pixels are composited on BACKGROUND. As in torchvision and timm,
    metadata that ask for a rotation do not turn the picture. `content` is the whole file, `name` is for errors.

    Raises:
        InputError: it is damaged, too large, no picture that Pillow knows, or has values of unknown range.
    """
    if not content:
        raise InputError(f"{name}: an empty file, expected a picture")

    def said(error: Exception) -> str:
        match error:
            case UnidentifiedImageError():
                return f"{name}: expected a picture, found bytes of no format that Pillow knows"
            case Image.DecompressionBombError() | Image.DecompressionBombWarning():
                return f"{name}: too many pixels: {one_line(error)}; shrink the picture"
        return f"{name}: a damaged picture ({one_line(error)})"

    with refusing(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(content))
        if max(image.size) > LONGEST * min(image.size):
            across, down = image.size
            raise InputError(f"{name}: a picture of {across}x{down}, whose sides differ more than {LONGEST} times")
        image.load()
        return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """The same with 8 bits a channel and without transparency; see `decode`.

    Raises:
        InputError: it has values of unknown range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_16_bits(image).convert("RGB")
    if image.mode in ("F", "I"):
        values = "floating-point values" if image.mode == "F" else "32-bit values"
        raise InputError(f"{name}: a picture of {values}, whose range nobody knows; save it with 8 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))
