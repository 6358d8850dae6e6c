"""Classifiers: loading, preprocessing, reconstruction units."""
