"""Whatever network of timm: quantized, or refused in one line. The table of docs/quantization.md is held to it."""

import copy
import re
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.models.weights import check_runs
from pipeline_lib.params.everything import read_preset
from pipeline_lib.params.reconstruct import Precision
from pipeline_lib.quantization.anatomy import observe
from pipeline_lib.quantization.families import family_of
from pipeline_lib.quantization.initialise import search_ranges
from pipeline_lib.quantization.layers import quant_layers
from pipeline_lib.quantization.prepare import Prepared, check_quantizable, prepare, rounded_to_nearest
from pipeline_lib.quantization.scheme import Scheme, make_scheme
from tests.conftest import ROOT

PRESET = read_preset("default")
PAGE = ROOT / "docs/quantization.md"
ROW = re.compile(r"\| `(\w+)` \| `(\w+)` \| (\d+) \| (.*) \|")
TABLE = [match.groups() for match in map(ROW.fullmatch, PAGE.read_text().splitlines()) if match]
SAMPLE = ["resnet", "byobnet", "nfnet", "beit", "xcit", "levit", "visformer", "efficientformer", "sequencer"]
W4A4 = Precision(weight_bits=4, activation_bits=4)


def scheme(network: nn.Module) -> partial[Scheme]:
    method = family_of(network).choose_method(PRESET.reconstruct, PRESET.methods)
    return partial(make_scheme, precision=W4A4, softmax="log-sqrt2", method=method)


def ready(network: nn.Module, channels: int, pixels: int) -> Prepared:
    return prepare(network, (channels, pixels, pixels), scheme(network))


def outcome(name: str, pixels: int) -> str:
    """What becomes of the network with random weights: `quantized`, or why not."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            module.running_var.uniform_(0.8, 1.6)
            module.weight.uniform_(0.6, 1.2)
    try:
        check_runs(network, [3, pixels, pixels], 10, name)
        prepared = ready(network, 3, pixels)
    except InputError as error:
        return str(error).removesuffix("; choose another model")
    images = torch.randn(2, 3, pixels, pixels)
    expected = prepared.reference(images)
    assert torch.allclose(prepared.quantized(images), expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    search_ranges(prepared.quantized, [images], prepared.anatomy.norm_readers, "minmax")
    logits = rounded_to_nearest(prepared.quantized)(images)
    assert logits.shape == (2, 10) and logits.isfinite().all()
    return "quantized"


def check(rows: list[tuple[str, ...]]) -> None:
    found = [f"| `{module}` | `{name}` | {pixels} | {outcome(name, int(pixels))} |" for module, name, pixels, _ in rows]
    expected = [f"| `{module}` | `{name}` | {pixels} | {said} |" for module, name, pixels, said in rows]
    assert found == expected, "the table of docs/quantization.md should have\n" + "\n".join(found)


@pytest.mark.parametrize("module", SAMPLE)
def test_a_sample_of_the_table(module: str) -> None:
    check([row for row in TABLE if row[0] == module])


@pytest.mark.slow
def test_the_table() -> None:
    check(TABLE)


def test_every_module_of_timm_has_a_row() -> None:
    of_timm = {entry.__module__.rpartition(".")[2] for entry in map(timm.model_entrypoint, timm.list_models())}
    assert {row[0] for row in TABLE} == of_timm
    assert all(timm.model_entrypoint(name).__module__.endswith(f".{module}") for module, name, *_ in TABLE)


def test_a_settled_weight_is_the_one_that_is_computed_with() -> None:
    """Else the integers of a checkpoint would be standardised away in every pass."""
    network = timm.create_model("test_nfnet", num_classes=10).eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 64)
    assert observe(network, images).computed
    prepared = ready(network, 3, 64)
    search_ranges(prepared.quantized, [images], prepared.anatomy.norm_readers, "minmax")
    rounded = rounded_to_nearest(prepared.quantized)
    assert not observe(rounded, images).computed
    for layer in quant_layers(rounded).values():
        assert len(layer.weight[0].unique()) <= 2**layer.weight_bits


class Odd(nn.Module):
    """A network that computes in one more way."""

    def __init__(self, more: Callable[[torch.Tensor, nn.Module], torch.Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.more, self.layer, self.last = nn.Conv2d(3, 8, 3), more, layer, nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.first(x).flatten(2).transpose(1, 2)
        return self.last(self.more(tokens, self.layer).mean(1))


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, 2 * self.weight, self.bias)


@pytest.mark.parametrize(
    ("more", "layer", "said"),
    [
        (lambda x, _: x @ x.transpose(1, 2) @ x, None, r"the network: Odd multiplies \((__)?matmul(__)?\) outside"),
        (lambda x, _: torch.einsum("bij,bkj->bik", x, x) @ x, None, r"multiplies \(einsum\)"),
        (lambda x, _: nn.functional.scaled_dot_product_attention(x, x, x), None, "scaled_dot_product_attention"),
        (
            lambda x, m: m(x, x, x)[0],
            nn.MultiheadAttention(8, 2, batch_first=True),
            "layer.out_proj and 0 other layers",
        ),
        (lambda x, m: m(x)[0], nn.LSTM(8, 8, batch_first=True), r"layer: LSTM multiplies \(lstm\)"),
        (lambda x, m: m(x), Doubled(8, 8), "layer: a Doubled computes with another weight than its own"),
        (lambda x, m: nn.functional.linear(x, m.weight), nn.Linear(8, 8), "layer and 0 other layers are not called"),
    ],
)
def test_what_would_stay_float_unseen_is_refused(
    more: Callable[..., torch.Tensor], layer: nn.Module, said: str
) -> None:
    network = Odd(more, layer).eval().requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match=said):
        check_quantizable(network, (3, 16, 16), scheme(network))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items()), "a copy is prepared"


def test_what_can_stay_float_is_none_of_it() -> None:
    network = Odd(lambda x, _: x * x.sigmoid()).eval().requires_grad_(False)
    check_quantizable(network, (3, 16, 16), scheme(network))
