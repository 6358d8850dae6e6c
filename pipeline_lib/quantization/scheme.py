"""What is quantized how: all that is needed to put the same quantizers into the same architecture again."""

from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.params.reconstruct import Granularity, Grid, Method, Precision, Softmax
from pipeline_lib.quantization.anatomy import Anatomy
from pipeline_lib.quantization.families import Family
from pipeline_lib.quantization.policies import EIGHT, Bits, resolve


@dataclass(frozen=True)
class Scheme:
    """The bits and grids of a network."""

    bits: dict[str, Bits]  # by layer, in order of execution
    weights: Grid
    granularity: Granularity  # of weights
    activations: Grid
    attention_bits: int
    softmax: Softmax
    residual_bits: int | None  # of the sums in blocks; none: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Scheme":
        """The inverse of `to_json`."""
        return cls(**{**value, "bits": {name: Bits(**bits) for name, bits in value["bits"].items()}})


def make_scheme(anatomy: Anatomy, family: Family, precision: Precision, softmax: Softmax, method: Method) -> Scheme:
    """The scheme of a precision for a network.

    Where residual sums are quantized so that an integer runtime can have them, the softmax is uniform for the same end.

    Args:
        anatomy: of the network, batch norm folded.
        family: of the network; it has the policy.
        precision: nominal bits, and overrides.
        softmax: grid of what follows a softmax.
        method: of reconstruction, which says what the grids of weights and activations are like.

    Raises:
        InputError: an override names no layer, or two give one tensor different bits.
    """
    policy = family.policy(precision)
    return Scheme(
        bits=resolve(precision, policy, anatomy.layers, anatomy.first_readers),
        weights=method.weights,
        granularity=method.granularity,
        activations=method.activations,
        attention_bits=precision.activation_bits,
        softmax="uniform" if policy.sums else softmax,
        residual_bits=EIGHT if policy.sums else None,
    )
