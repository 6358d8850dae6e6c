"""One digest for a value that JSON can hold."""

import hashlib
import json
from typing import Any


def digest(value: Any) -> str:
    """Hex SHA-256. Fractions are rounded to nine digits: logarithms have other last bits on other machines."""
    rounded = json.loads(json.dumps(value), parse_float=lambda number: round(float(number), 9))
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()
