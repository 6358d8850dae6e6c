"""Rendering prompts into shards with a diffusion pipeline."""
