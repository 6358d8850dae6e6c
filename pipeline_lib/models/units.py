"""Reconstruction units: the blocks of a network, and the layers that stand outside of any."""

import re
from collections.abc import Collection, Iterable, Sequence

# Names that timm gives the blocks of each family; tried in this order.
BLOCKS = (
    r"layer\d+\.\d+",  # ResNet
    r"blocks\.\d+\.\d+",  # MobileNet, EfficientNet, MNasNet
    r"s\d+\.b\d+",  # RegNet
    r"layers\.\d+\.blocks\.\d+",  # Swin
    r"stages\.\d+\.blocks\.\d+",  # ConvNeXt
    r"blocks\.\d+",  # ViT, DeiT
)


def merge(units: Sequence[str], chained: Collection[str], size: int) -> list[tuple[str, ...]]:
    """Runs of up to `size` units each of which, but the first, reads what the one before it writes."""
    groups: list[tuple[str, ...]] = []
    for unit in units:
        if groups and unit in chained and len(groups[-1]) < size:
            groups[-1] += (unit,)
        else:
            groups.append((unit,))
    return groups


def reconstruction_units(module_names: Iterable[str], layers: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Group quantizable layers, given in order of execution, into (unit, its layers), in the same order.

    A network of none of the known families gets a unit for each layer.
    """
    names = set(module_names)
    pattern = next((p for p in BLOCKS if any(re.fullmatch(p, name) for name in names)), r"(?!)")
    units: dict[str, list[str]] = {}
    for layer in layers:
        block = re.match(rf"({pattern})(?=\.)", layer)
        units.setdefault(block.group(1) if block else layer, []).append(layer)
    return list(units.items())
