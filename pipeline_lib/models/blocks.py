"""The blocks of a network, by the names that timm gives them."""

from collections.abc import Mapping

from torch import nn


def block_pattern(network: nn.Module) -> str:
    """Regular expression for the names of blocks, from the `group_matcher` that timm's networks have."""
    matcher = getattr(network, "group_matcher", None)
    groups = matcher(coarse=False) if matcher else {}
    blocks = groups.get("blocks", []) if isinstance(groups, Mapping) else []
    entries = [(blocks, None)] if isinstance(blocks, str) else blocks
    # an entry with a position is a single module between blocks, such as a norm
    patterns = [pattern.removeprefix("^") for pattern, position in entries if position is None]
    return "|".join(patterns) or r"(?!)"
