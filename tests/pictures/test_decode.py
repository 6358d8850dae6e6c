"""Pictures of every kind become RGB with 8 bits, or an error that names them."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.pictures.decode import BACKGROUND, decode, picture_suffixes

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))


def saved(image: Image.Image, format_: str = "PNG", **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format_, **options)
    return content.getvalue()


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF", "PPM", "TGA"])
def test_without_loss(format_: str) -> None:
    image = decode(saved(RGB, format_), "x")
    assert image.mode == "RGB"
    assert np.array_equal(image, RGB)


@pytest.mark.parametrize("format_", ["WEBP", "AVIF", "JPEG", "JPEG2000", "GIF"])
def test_with_loss(format_: str) -> None:
    image = decode(saved(Image.new("RGB", (32, 32), (200, 30, 90)), format_), "x")
    assert np.abs(np.asarray(image, int) - (200, 30, 90)).max() < 12


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(format_: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert np.asarray(decode(saved(Image.fromarray(values), format_), "x"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_show_the_background(mode: str) -> None:
    alpha = np.zeros((8, 8, 4), np.uint8)
    alpha[4:] = (10, 10, 10, 255)
    pixels = np.asarray(decode(saved(Image.fromarray(alpha).convert(mode)), "x"))
    assert pixels[0, 0].tolist() == list(BACKGROUND)
    assert pixels[-1, -1].tolist() == [10, 10, 10]


def test_a_transparent_colour() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 50, 60, 70])
    assert np.asarray(decode(saved(palette, transparency=1), "x"))[0, 0].tolist() == list(BACKGROUND)
    assert np.asarray(decode(saved(palette, transparency=0), "x"))[0, 0].tolist() == [50, 60, 70]
    assert np.asarray(decode(saved(RGB, transparency=(1, 2, 3)), "x")).shape == (9, 7, 3)


def test_other_modes() -> None:
    for mode in ("1", "L", "CMYK", "YCbCr"):
        assert decode(saved(RGB.convert(mode), "TIFF"), "x").mode == "RGB"


def test_damaged() -> None:
    jpeg, png = saved(RGB.resize((256, 256)), "JPEG"), saved(RGB)
    broken = bytearray(png)
    broken[png.index(b"IDAT") + 9] ^= 255
    for content, said in (
        (b"", "an empty file"),
        (b"no picture", "of no format that Pillow knows"),
        (jpeg[: len(jpeg) // 2], "damaged picture"),
        (png[:-30], "damaged picture"),
        (bytes(broken), "damaged picture"),
        (saved(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point values"),
        (saved(Image.fromarray(np.full((4, 4), 200, np.int32)), "TIFF"), "a picture of 32-bit values"),
    ):
        with pytest.raises(InputError, match=said) as error:
            decode(content, "folder/x.png")
        assert str(error.value).startswith("folder/x.png: ")
        assert "\n" not in str(error.value)


def test_a_long_thin_picture() -> None:
    with pytest.raises(InputError, match="x: a picture of 9000x1, whose sides differ more than 1000 times"):
        decode(saved(Image.new("1", (9000, 1))), "x")


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (50, 10):  # 63 pixels: Pillow warns of up to twice the limit, then raises an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match="too many pixels"):
            decode(saved(RGB), "x.png")


def test_odd_metadata_say_nothing(recwarn: pytest.WarningsRecorder) -> None:
    warnings.simplefilter("always")
    jpeg = saved(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x09\0garbage")
    assert decode(jpeg, "x").size == RGB.size
    assert not recwarn.list


def test_suffixes() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".avif"} <= picture_suffixes()
    assert not {".txt", ".json", ".pdf", ".h5", ".mpg", ".db", ""} & picture_suffixes()
