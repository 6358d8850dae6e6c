"""Calibration sets: sources and assembly."""
