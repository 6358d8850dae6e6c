"""What is computed is what the version says: a change that raises no version would leave old datasets in use."""

import pytest

from tests.golden import prompts
from tests.golden.recorded import EXACT, SYNTHESIS, Exact, losses_problem, pixels_problem, record


@pytest.mark.parametrize("exact", EXACT, ids=lambda exact: exact.name)
def test_exact_values_are_those_of_the_version(exact: Exact) -> None:
    assert not exact.problem()


def test_rendered_pixels_are_nearly_those_of_the_version() -> None:
    assert not pixels_problem()


def test_losses_of_reconstruction_are_nearly_those_of_the_version() -> None:
    assert not losses_problem()


def test_a_change_is_found_and_is_not_recorded_as_the_same_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SYNTHESIS.path.read_bytes()
    monkeypatch.setattr("pipeline_lib.synthesis.plan.seed_of", lambda *_: 5)
    assert SYNTHESIS.problem().startswith("synthesis: seeds differ from")
    with pytest.raises(SystemExit, match="raise VERSION in pipeline_lib/synthesis/version.py"):
        record()
    assert SYNTHESIS.path.read_bytes() == before


def test_another_version_has_nothing_recorded() -> None:
    assert "prompts-0.json lacks single" in Exact("prompts", 0, "", prompts.compute).problem()
