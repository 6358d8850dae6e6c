"""Section `images`: pictures that were rendered elsewhere, a source a key."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Section


class StatedImages(Section):
    """What the user says of a source of pictures, which nobody can check."""

    origin: Annotated[str, Field(min_length=1, pattern=r"^[^\r\n\x00]*$")]  # in words: "rendered by X from prompts Y"
