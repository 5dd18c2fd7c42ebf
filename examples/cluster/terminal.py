"""Keys as they are pressed: a terminal is taken out of its line mode, a pipe is read as it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call ``pressed`` with each key, on the running loop; what the terminal was like is put back at the end."""
    loop = asyncio.get_running_loop()
    try:
        number = sys.stdin.fileno()
        before = termios.tcgetattr(number) if os.isatty(number) else None
    except (OSError, ValueError):  # no standard input at all
        yield
        return

    def readable() -> None:
        data = os.read(number, 64)
        if not data:
            loop.remove_reader(number)
        for key in data.decode(errors="ignore"):
            pressed(key)

    if before is not None:
        tty.setcbreak(number)  # Ctrl-C still is one
    try:
        loop.add_reader(number, readable)
    except (OSError, ValueError):  # epoll watches neither files nor /dev/null, and nobody presses keys there
        yield
        return
    try:
        yield
    finally:
        loop.remove_reader(number)
        if before is not None:
            termios.tcsetattr(number, termios.TCSADRAIN, before)
