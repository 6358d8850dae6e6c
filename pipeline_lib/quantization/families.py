"""Families of networks: each has its attention, where its norms are read, its bit policies and its default method.

To add one, write the quantized form of its attention in attention.py and give it an entry in FAMILIES.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timm.layers import Attention
from timm.models.efficientformer import Attention as EfficientAttention
from timm.models.swin_transformer import WindowAttention
from torch import nn

from pipeline_lib.errors import InputError
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.quantization.attention import (
    QuantAttention,
    QuantEfficientAttention,
    QuantizeAttention,
    QuantWindowAttention,
)
from pipeline_lib.quantization.policies import CNN_POLICIES, VIT_POLICIES, Policy


def norm_of_window(layer: str) -> str | None:
    """Swin cuts the output of norm1 into windows before attn.qkv reads it: that moves tokens and changes none."""
    return layer.removesuffix("attn.qkv") + "norm1" if layer.endswith("attn.qkv") else None


@dataclass(frozen=True)
class Family:
    """A kind of network."""

    name: str
    policies: Mapping[str, Policy]  # the first is the default
    method: str  # default, a key of `methods` in params.yaml
    attention: Mapping[type[nn.Module], QuantizeAttention]  # by the class in timm
    norm_before: Callable[[str], str | None] = lambda _: None  # see `anatomy_of`

    def policy(self, precision: Precision) -> Policy:
        """The policy of a precision.

        Raises:
            InputError: the family has none of the name.
        """
        name = precision.policies.get(self.name, next(iter(self.policies)))
        if name not in self.policies:
            raise InputError(
                f"params.yaml: a precision's `policies.{self.name}` is {name!r}; expected {', '.join(self.policies)}"
            )
        return self.policies[name]

    def choose_method(self, reconstruct: Reconstruct, methods: Mapping[str, Method]) -> Method:
        """The method that networks of the family are reconstructed by.

        Raises:
            InputError: `methods` of params.yaml lacks it.
        """
        name = reconstruct.methods.get(self.name, self.method)
        if name not in methods:
            raise InputError(
                f"params.yaml: no {name!r} in `methods`, which networks of the family {self.name} take; add it, or "
                f"name one of {', '.join(methods)} at `reconstruct.methods.{self.name}`"
            )
        return methods[name]


CNN = Family("cnn", CNN_POLICIES, "tuned", attention={})
VIT = Family(
    "vit",
    VIT_POLICIES,
    "tuned-vit",
    attention={Attention: QuantAttention, WindowAttention: QuantWindowAttention},
    norm_before=norm_of_window,
)
EFFICIENTFORMER = Family(
    "efficientformer", VIT_POLICIES, "tuned-vit", attention={EfficientAttention: QuantEfficientAttention}
)
FAMILIES = [VIT, EFFICIENTFORMER, CNN]  # the first whose attention a network has; the last has none


def family_of(network: nn.Module) -> Family:
    """The family of a network.

    Raises:
        InputError: it has attention that no family knows.
    """
    for name, module in network.named_modules():
        if hasattr(module, "qkv") and not any(isinstance(module, tuple(family.attention)) for family in FAMILIES):
            raise InputError(
                f"{name}: attention of kind {type(module).__name__} cannot be quantized yet; choose another model"
            )
    kinds = [type(module) for module in network.modules()]
    return next(
        family
        for family in FAMILIES
        if not family.attention or any(issubclass(kind, tuple(family.attention)) for kind in kinds)
    )


def check_families(
    reconstruct: Reconstruct, methods: Mapping[str, Method], precisions: Mapping[str, Precision]
) -> None:
    """Hold what params.yaml says of families against those that there are.

    Raises:
        InputError: it names a family, policy or method that there is not.
    """
    known = [family.name for family in FAMILIES]
    for key, names in [
        ("reconstruct.methods", reconstruct.methods),
        *((f"precisions.{name}.policies", precision.policies) for name, precision in precisions.items()),
    ]:
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise InputError(f"params.yaml: `{key}` names {', '.join(unknown)}; families are {', '.join(known)}")
    for family in FAMILIES:
        family.choose_method(reconstruct, methods)
        for precision in precisions.values():
            family.policy(precision)
