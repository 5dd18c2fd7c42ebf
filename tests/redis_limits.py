"""Limits of a ``Stack``, in Redis above all: where they are counted, and that what is under way there is waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from streamware import RedisLimitStorage, Stack, TokenBudgetMiddleware
from streamware.limiting.ledger import Ledger
from tests.redis_server import PATIENCE


def storage_of(stack: Stack) -> Any:
    """What ``storage=`` its middlewares have: all the same."""
    storages = [entry.kwargs["storage"] for entry in stack.middleware if "storage" in entry.kwargs]
    assert all(storage is storages[0] for storage in storages)
    return storages[0]


def patient(stack: Stack) -> Stack:
    """``stack``, whose requests wait for as long as an answer takes, so that none is decided without Redis."""
    storage = storage_of(stack)
    if isinstance(storage, RedisLimitStorage):
        storage._timeout = PATIENCE
    return stack


def ledger_of(stack: Stack) -> Ledger:
    """Of its token budget."""
    (budget,) = (ours for ours in stack._own if isinstance(ours, TokenBudgetMiddleware))
    return budget._ledger


async def settled(stack: Stack) -> None:
    """Wait until no stream that has ended is left to be settled."""
    settler = ledger_of(stack).settler
    async with asyncio.timeout(PATIENCE):
        while len(settler) or settler._task is not None:
            await asyncio.sleep(0.001)
