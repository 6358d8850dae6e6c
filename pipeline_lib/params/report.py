"""Section `report`."""

from typing import Annotated

from pydantic import Field

from pipeline_lib.params.base import Section


class Report(Section):
    """What the HTML page shows."""

    samples: Annotated[int, Field(ge=1, le=200)] = 20  # images of each source in the sample grid
