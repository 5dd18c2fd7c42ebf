"""Options of any kind, checked alike: what is a number, and the error for what is not as it should be."""

from __future__ import annotations

import math
from typing import TypeGuard

from .exceptions import ConfigurationError


def check(owner: str, good: bool, option: str, received: object, expected: str) -> None:
    """``owner``: the class that has the option; ``expected`` completes "must be …".

    :raises ConfigurationError: not ``good``.
    """
    if not good:
        raise ConfigurationError.option(owner, option, received, expected)


def is_number(value: object) -> TypeGuard[float]:
    """Finite, and no yes or no."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> TypeGuard[float]:
    """A number greater than 0."""
    return is_number(value) and value > 0


def is_whole(value: object, least: int = 1) -> TypeGuard[int]:
    """A whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_text(value: object) -> TypeGuard[str]:
    """Text, not empty."""
    return isinstance(value, str) and value != ""
