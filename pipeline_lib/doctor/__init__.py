"""What a run will use, looked at in seconds, before anything expensive begins."""
