"""One script a stage: `python -m stages.NAME`, as dvc.yaml calls them."""
