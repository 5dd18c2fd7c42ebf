"""Asking the verifier again about tokens of connections that are open.

Rules:

1. At most ``AT_ONCE`` questions are under way in a worker, and no more than ``A_SECOND`` begin in a second, however
   many connections there are.
2. Connections by the same token are asked about once.
3. No answer changes nothing, and is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from ..observe import Observer
from ..types import Scope
from .ending import AUTH_EXPIRED, Ending
from .tenure import Holder, Tenure

logger = logging.getLogger("streamware.auth")

AT_ONCE = 8
A_SECOND = 100
#: Seconds that an answer may take.
ASK_WAIT = 30.0


class Answer(Protocol):
    """What the verifier says of a token. ``known``: False where it cannot tell for now."""

    @property
    def known(self) -> bool: ...

    def renew(self, scope: Scope, holder: Holder) -> str:
        """Let ``holder`` have what the token says, if it is good, of the same holder, and allows what the connection
        ``scope`` needs; "" then, else nothing is changed, and a short fixed word says why."""
        ...


class Asks(Protocol):
    """The verifier, as connections that are open need it. It raises nothing."""

    async def ask(self, scope: Scope, token: str) -> Answer:
        """What is known of ``token`` now. ``scope``: of a connection that it is for."""
        ...


class Revalidation:
    """See the module. ``renew``, ``end``: what follows from an answer."""

    def __init__(
        self, asks: Asks, observer: Observer, *, renew: Callable[[Tenure], None],
        end: Callable[[Tenure, Ending], None],
    ) -> None:  # fmt: skip
        self._asks = asks
        self._observer = observer
        self._renew = renew
        self._end = end
        self._waiting: dict[str, list[Tenure]] = {}  # by token
        self.tasks: set[asyncio.Task[None]] = set()

    def ask(self, tenure: Tenure) -> None:
        """Look at its token again, when it is its turn."""
        same = self._waiting.setdefault(tenure.token, [])
        if tenure not in same:
            same.append(tenure)
        if not self.tasks:
            task = asyncio.get_running_loop().create_task(self._work_off())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            began = loop.time()
            tokens = list(self._waiting)[:AT_ONCE]
            asked = [self._look_at(token, self._waiting.pop(token)) for token in tokens]
            await asyncio.gather(*asked)
            await asyncio.sleep(max(0.0, began + len(tokens) / A_SECOND - loop.time()))

    async def _look_at(self, token: str, tenures: list[Tenure]) -> None:
        held = [tenure for tenure in tenures if tenure.is_held and tenure.token == token]
        if not held:
            return
        answer = await self.answer(held[0], token)
        if answer is None:
            self._observer.count("auth.revalidated", reason="unavailable")
            return
        for tenure in held:
            if not tenure.is_held or tenure.token != token:
                continue  # ended, or re-authenticated meanwhile
            refused = answer.renew(tenure.scope, tenure.holder)
            self._observer.count("auth.revalidated", reason=refused or "good")
            if refused:
                self._end(tenure, AUTH_EXPIRED)
            else:
                self._renew(tenure)

    async def answer(self, tenure: Tenure, token: str) -> Answer | None:
        """What the verifier says of ``token`` now; None where it cannot tell, or not in time."""
        try:
            async with asyncio.timeout(ASK_WAIT):
                answer = await self._asks.ask(tenure.scope, token)
        except Exception as error:  # one of somebody's own; its text may hold anything
            logger.warning("a token of an open connection could not be looked at again: %s", type(error).__name__)
            return None
        return answer if answer.known else None
