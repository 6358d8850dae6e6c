"""Fake-quantization operators, namespace `mixq`: a reference in PyTorch, and the same compiled for CPU and CUDA."""

from pipeline_lib.fakequant.backends import Backend, backend, reference_only
from pipeline_lib.fakequant.operators import fake_quant, fake_quant_drop, log_sqrt2_quant, mix, soft_round

__all__ = [
    "Backend",
    "backend",
    "fake_quant",
    "fake_quant_drop",
    "log_sqrt2_quant",
    "mix",
    "reference_only",
    "soft_round",
]
