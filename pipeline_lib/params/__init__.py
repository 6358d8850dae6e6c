"""Typed models of every section of params.yaml."""
