"""What `python -m pipeline_lib` can be asked for."""
