"""Labelled images, metrics, the generalization gap."""
