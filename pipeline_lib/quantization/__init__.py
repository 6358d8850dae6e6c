"""Quantizers, range search, block reconstruction, checkpoints."""
