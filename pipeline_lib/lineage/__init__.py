"""Where artifacts came from: the graph of stages, its audit, traces of samples."""
