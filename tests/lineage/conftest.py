"""The finished pipeline of tests/pipeline, for tests that sign it."""

from tests.pipeline.conftest import finished

__all__ = ["finished"]
