"""Sources of calibration images against each other, over replicates and domains."""
