"""Running tasks whose results are bytes: in this process, in processes of this machine, or on a Ray cluster."""
