"""`python -m tests.golden` records what this version computes."""

from tests.golden.recorded import record

record()
