"""model.json, which describes the classifier of a folder. Without torch, unless timm is asked for the preprocessing."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline_lib.errors import InputError, reading
from pipeline_lib.params.base import Count, Section, validate

CARD, WEIGHTS = "model.json", "model.safetensors"  # of a classifier's folder
LEVEL = 0.0039  # just below 1/255, one level of a pixel
LARGEST = 4096  # pixels of a side


def _of_unit_pixels(values: list[float]) -> list[float]:
    if max(values) > 1:
        raise PydanticCustomError("unit", "expected values for pixels from 0 to 1; divide those for 0 to 255 by 255")
    return values


def _of_visible_pixels(values: list[float]) -> list[float]:
    if min(values) < LEVEL:
        raise PydanticCustomError("std", "expected 1/255 or more in each channel, for pixels from 0 to 1")
    return values


PerChannel = Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]


class Preprocessing(Section):
    """What images a network expects: timm's data config, all of it, for what is left out would be guessed."""

    input_size: Annotated[list[Annotated[int, Field(ge=1, le=LARGEST)]], Field(min_length=3, max_length=3)]  # c, h, w
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: Annotated[PerChannel, AfterValidator(_of_unit_pixels)]  # of each channel, of pixels from 0 to 1
    std: Annotated[PerChannel, AfterValidator(_of_unit_pixels), AfterValidator(_of_visible_pixels)]
    crop_pct: Annotated[float, Field(ge=0.05, le=1)]  # share of a side that the central crop keeps
    crop_mode: Literal["center", "squash"]  # squash: both sides are resized alike, whatever the image's shape

    @model_validator(mode="after")
    def _channels_fit(self) -> "Preprocessing":
        channels, height, width = self.input_size
        if channels not in (1, 3) or height != width:
            raise PydanticCustomError("size", "expected an input_size of 1 or 3 channels and a square, [3, 224, 224]")
        if not len(self.mean) == len(self.std) == channels:
            raise PydanticCustomError("channels", "expected a mean and a std for each channel of input_size")
        return self


def _of_timm(name: str) -> str:
    if "/" in name or ":" in name:
        raise PydanticCustomError(
            "timm",
            "expected a name of timm, such as resnet18.a1_in1k; of a repository of the hub, hf-hub:OWNER/NAME, "
            "`python -m pipeline_lib import-classifier` makes a folder",
        )
    return name


def _of_grey_or_colours(arguments: dict[str, Any]) -> dict[str, Any]:
    channels = arguments.get("in_chans", 3)
    if type(channels) is not int or channels not in (1, 3):
        raise PydanticCustomError("channels", "expected an `in_chans` of 3, or of 1 for grey images")
    return arguments


class Card(Section):
    """model.json: how to build the network, where its weights are, what images it expects."""

    timm: Annotated[
        str, AfterValidator(_of_timm)
    ]  # name in timm, with the tag of its weights if they come from the hub
    # More arguments of timm.create_model.
    arguments: Annotated[dict[str, Any], AfterValidator(_of_grey_or_colours)] = Field(default_factory=dict)
    num_classes: Count
    preprocessing: Preprocessing | None = None  # null: timm's, of the weights that the tag names
    test_accuracy: float | None = None  # top-1, percent
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None  # of the weights
    # The commit of the hub's repository, where model.safetensors does not lie beside this file.
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = Field(
        default=None, exclude_if=lambda revision: revision is None
    )


def read_card(folder: Path) -> Card:
    """The model.json of a classifier's folder, whose weights it pins.

    Raises:
        InputError: absent, not JSON, not a card, or without the SHA-256 of the weights.
    """
    card = read_unpinned_card(folder)
    if card.sha256 is None:
        raise InputError(
            f"{folder / CARD}: expected the SHA-256 of its weights, found weights that may change; "
            f"`python -m pipeline_lib pin {folder}` pins them"
        )
    return card


def check_class_count(folder: Path, classes: int) -> None:
    """Stop unless a classifier has as many outputs as there are classes.

    Raises:
        InputError: it has more or fewer.
    """
    known = read_card(folder).num_classes
    if known != classes:
        raise InputError(f"{folder}: a network of {known} classes, but `task.classes` lists {classes}")


def read_unpinned_card(folder: Path) -> Card:
    """As `read_card`, for who is about to pin the weights.

    Raises:
        InputError: it is absent, not JSON, or lacks something.
    """
    path = folder / CARD
    if not path.exists():
        raise InputError(f"{path}: no classifier here; `task.classifiers` in params.yaml names the folder")
    with reading(path, "JSON", "`git checkout` restores what ships, `import-classifier` writes a new folder"):
        content = json.loads(path.read_text(encoding="utf-8"))
    return validate(Card, content, "", path)


def resolve_data_config(folder: Path) -> dict[str, Any]:
    """The timm data config of a classifier's folder: input_size, interpolation, mean, std, crop_pct, crop_mode.

    Raises:
        InputError: model.json has none and its timm name does not say whose it is, or it does not fit the network.
    """
    card, path = read_card(folder), folder / CARD
    preprocessing = card.preprocessing
    if preprocessing is None:
        if card.revision is None and "." not in card.timm:
            raise InputError(
                f"{path}: missing key `preprocessing`, and {card.timm!r} does not say how these weights were trained; "
                "write input_size, interpolation, mean, std, crop_pct and crop_mode of their training, or let "
                "`python -m pipeline_lib import-classifier` write the folder"
            )
        preprocessing = timm_preprocessing(card.timm, path)
    channels, expected = preprocessing.input_size[0], card.arguments.get("in_chans", 3)
    if channels != expected:
        raise InputError(
            f"{path}: `preprocessing.input_size` has {channels} channels, the network reads {expected}; "
            "`in_chans` in `arguments` is the number"
        )
    return preprocessing.model_dump()


def timm_preprocessing(name: str, where: Path) -> Preprocessing:
    """That of the weights that a timm name means. `where` is named in errors.

    Raises:
        InputError: timm knows none, or crops in a way that is not implemented.
    """
    import timm  # imports torch

    try:
        config = timm.get_pretrained_cfg(name)
    except (RuntimeError, ValueError):  # no such tag
        config = None
    if config is None:
        raise InputError(f"{where}: timm has no preprocessing of {name!r}; write `preprocessing`")
    return as_preprocessing(config.to_dict(), where)


def as_preprocessing(pretrained_cfg: dict[str, Any], where: Path | str, **changes: Any) -> Preprocessing:
    """What timm's `pretrained_cfg` says of images, with `changes` by key. `where` is named in errors.

    Raises:
        InputError: a value is out of range, or the crop is of a kind that is not implemented.
    """
    import timm  # imports torch

    config = {**timm.data.resolve_data_config(pretrained_cfg=pretrained_cfg), **changes}
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in config.items()}
    return validate(Preprocessing, plain, "preprocessing", Path(where))
