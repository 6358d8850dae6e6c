"""One cell: quantized on a calibration set, and judged."""
