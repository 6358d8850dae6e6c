"""Write the leaderboard and the HTML report."""

from pathlib import Path

from pipeline_lib.command import run
from pipeline_lib.params.base import read
from pipeline_lib.params.report import Report
from pipeline_lib.params.task import Axes
from pipeline_lib.provenance.record import Kind, recorded
from pipeline_lib.report.page import write_report


def main() -> None:
    """Write data/report/: index.html and leaderboard.csv, from what the other stages left in data/."""
    axes, params = read(Axes, "axes"), read(Report, "report")
    data, out = Path("data"), Path("data/report")
    read_from = [data / name for name in ("choice/ranking.csv", "evaluation", "quantized", "preview")]
    inputs: dict[Path, Kind] = dict.fromkeys(read_from, "made")
    with recorded("report", "report", ("pandas", "matplotlib", "jinja2"), [out], inputs) as facts:
        facts |= write_report(data, axes, params, out)


if __name__ == "__main__":
    run(main)
