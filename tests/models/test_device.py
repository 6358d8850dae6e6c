"""Products are float32 unless the params say otherwise."""

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from tests.conftest import ROOT

RUNTIME = read(Runtime, "runtime", ROOT / "params.yaml").model_copy(update={"device": "cpu"})


@pytest.mark.parametrize(("tf32", "precision"), [(True, "tf32"), (False, "ieee")])
def test_tf32_is_asked_for(tf32: bool, precision: str) -> None:
    threads = torch.get_num_threads()
    assert resolve_device(RUNTIME, tf32=tf32) == torch.device("cpu")
    torch.set_num_threads(threads)
    assert torch.backends.cudnn.conv.fp32_precision == precision
    assert torch.backends.cuda.matmul.fp32_precision == precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there() -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        resolve_device(RUNTIME.model_copy(update={"device": "cuda"}))
