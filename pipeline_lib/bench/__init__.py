"""Measured speed, as ratios within one run: `python -m pipeline_lib bench`."""
