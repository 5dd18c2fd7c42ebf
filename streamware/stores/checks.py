"""The options that several stores share, checked alike."""

from __future__ import annotations

from ..checks import is_number, is_positive
from ..exceptions import ConfigurationError


def check_positive(owner: str, **options: object) -> None:
    """Each of ``options`` has to be a finite number greater than 0.

    :raises ConfigurationError: naming the store, ``owner``, and the first that is not.
    """
    for option, value in options.items():
        if not is_positive(value):
            raise ConfigurationError.option(owner, option, value, "greater than 0")


def check_shares(owner: str, max_log_bytes: int, owner_share: float, **whole: int) -> None:
    """One log is at most ``whole``, named as the store's option is, and an account holds a part of it.

    :raises ConfigurationError: they cannot be.
    """
    for option, most in whole.items():
        if max_log_bytes > most:
            raise ConfigurationError.option(owner, "max_log_bytes", max_log_bytes, f"at most {option}")
    if not is_number(owner_share) or not 0 < owner_share <= 1:
        raise ConfigurationError.option(owner, "owner_share", owner_share, "in (0, 1]")


def check_durability(owner: str, durability: object) -> None:
    """What local readers wait for.

    :raises ConfigurationError: it is neither of the two.
    """
    if durability not in ("local", "store"):
        raise ConfigurationError.option(owner, "durability", durability, '"local" or "store"')
