"""Fake-quantization operators, namespace `mixq`."""
