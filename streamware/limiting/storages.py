"""The storage that ``storage=`` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, Union

from .base import LimitStorage
from .memory import MemoryLimitStorage
from .redis import RedisLimitStorage

if TYPE_CHECKING:
    from ..stores.redis_target import Client

#: What ``storage=`` may be: None (this process's memory), a Redis URL, a client of redis-py, or a storage.
Storage: TypeAlias = Union[str, "Client", LimitStorage, None]


def storage_of(given: Storage, now: Callable[[], float] | None) -> LimitStorage:
    """The storage itself.

    :raises ConfigurationError: a URL or a client that names no Redis.
    """
    if given is None:
        return MemoryLimitStorage(now=now)
    return given if isinstance(given, LimitStorage) else RedisLimitStorage(given)
