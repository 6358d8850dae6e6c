"""Which source to calibrate on, without labels or real images."""
