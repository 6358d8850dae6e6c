"""`python -m pipeline_lib`: what DVC has no verb for."""

import subprocess
from typing import Annotated

import typer

from pipeline_lib.artifacts.files import atomic
from pipeline_lib.command import Group, guarded
from pipeline_lib.commands import bench, classifier, doctor, lineage, signing
from pipeline_lib.errors import InputError
from pipeline_lib.params import everything as presets
from pipeline_lib.params.base import PARAMS_FILE
from pipeline_lib.params.everything import preset_names

app = typer.Typer(cls=Group, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.command()
@guarded
def preset(
    name: Annotated[str, typer.Argument(help=f"{', '.join(preset_names())}.")],
) -> None:
    """Write the params.yaml of a preset, never over uncommitted edits."""
    text = presets.preset(name)
    if PARAMS_FILE.exists() and PARAMS_FILE.read_bytes() not in (presets.preset(n).encode() for n in preset_names()):
        status = subprocess.run(["git", "status", "--porcelain", "--", PARAMS_FILE], capture_output=True, check=False)
        if status.returncode or status.stdout:
            raise InputError(f"{PARAMS_FILE} has edits that are not committed; commit them, then run this again")
    with atomic(PARAMS_FILE) as path:
        path.write_text(text, encoding="utf-8")
    print(f"{PARAMS_FILE} is now the preset {name}")


app.add_typer(doctor.app)
app.add_typer(classifier.app)
app.add_typer(lineage.app)
app.add_typer(signing.app)
app.add_typer(bench.app, name="bench")

if __name__ == "__main__":
    app()
