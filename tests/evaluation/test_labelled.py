"""Labelled images in WebDataset's tars: what makes a sample."""

import io
from pathlib import Path

import pytest
from PIL import Image

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import labelled_images
from tests.artifacts.test_tars import write_tar


def test_labelled_samples(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    png = picture.getvalue()
    write_tar(tmp_path / "0.tar", {"a/b.c.PNG": png, "a/b.cls": b"3", "a/b.json": b"{}"})
    ((key, image, label),) = labelled_images(tmp_path)
    assert (key, image.size, label) == ("a/b", (4, 4), 3)
    for files, said in (
        ({"a.png": png}, r"sample a has png; expected one image and one \.cls"),
        ({"a.x.png": png, "a.y.png": png, "a.cls": b"1"}, r"sample a has x\.png, y\.png, cls; expected one image"),
        ({"a.png": png, "a.cls": b"one"}, "damaged tar of labelled images"),
    ):
        write_tar(tmp_path / "0.tar", files)
        with pytest.raises(InputError, match=said):
            list(labelled_images(tmp_path))
