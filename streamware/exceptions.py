"""Everything that Streamware raises.

    StreamwareError
    ├── ConfigurationError (also a ValueError)   an option or an order that cannot work; raised before any traffic
    └── StoreError                               a store could not do what it was asked
        ├── StoreUnavailable                     it did not answer, or not in time
        └── StoreFull                            it has no room for another log or item

A refused client is never an exception: refusals are answers. Exceptions mean a mistake in the set-up or an outage.
"""

from __future__ import annotations


class StreamwareError(Exception):
    """The root of the tree."""


class ConfigurationError(StreamwareError, ValueError):
    """A wrong option or a wrong order of middleware. The text names what was given and what would be right."""

    @classmethod
    def option(cls, owner: str, option: str, received: object, expected: str) -> ConfigurationError:
        """The error for one option: ``owner`` is the class that has it, ``expected`` completes "must be …"."""
        return cls(f"{owner}: {option} must be {expected}, got {received!r}")


class StoreError(StreamwareError):
    """A store failed. Raised ``from`` the library's own exception, where there is one."""


class StoreUnavailable(StoreError):
    """The store did not answer, or not within its time-out: whether a write was taken is unknown."""


class StoreFull(StoreError):
    """The store has no room for another log or item, and nothing that it may evict."""
