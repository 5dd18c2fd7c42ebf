"""Whether selections by glob pattern can touch the same path: decided, not guessed.

A glob is a small automaton: it reads a path letter by letter and its state is the set of places in the pattern where it
may be. Walking several of them in step, shortest path first, finds a path that all of the wanted ones match and none of
the unwanted ones does, or proves that there is none. Letters that no pattern tells apart need to be tried only once, so
the walk is short. The patterns are those of ``fnmatch``: ``*`` (also over ``/``), ``?``, ``[seq]`` and ``[!seq]``.
"""

from __future__ import annotations

import fnmatch
import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TypeAlias

Place: TypeAlias = tuple[int, int]  # (which pattern, how many of its tokens are done)
Places: TypeAlias = frozenset[Place]

UNDECIDED = ""  # no path: paths start with a slash
_MAX_STATES = 5_000  # patterns that people write need some dozens
_TOKEN = re.compile(r"\*|\?|\[!?+\]?+[^\]]*+\]|.", re.DOTALL)
_READABLE = "xabcdefghijklmnopqrstuvwyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-_/."


class Alternatives:
    """Patterns of which any may match."""

    __slots__ = ("_tokens",)

    def __init__(self, globs: Iterable[str]) -> None:
        # None stands for the star, which takes any number of letters; all other tokens take exactly one.
        self._tokens = [
            [None if token == "*" else re.compile(fnmatch.translate(token)) for token in _TOKEN.findall(glob)]
            for glob in globs
        ]

    def start(self) -> Places:
        return self._past_stars((which, 0) for which in range(len(self._tokens)))

    def step(self, places: Places, letter: str) -> Places:
        after: list[Place] = []
        for which, done in places:
            if done < len(self._tokens[which]):
                token = self._tokens[which][done]
                if token is None:
                    after.append((which, done))
                elif token.match(letter):
                    after.append((which, done + 1))
        return self._past_stars(after)

    def matched(self, places: Places) -> bool:
        return any(done == len(self._tokens[which]) for which, done in places)

    def _past_stars(self, places: Iterable[Place]) -> Places:
        reached: set[Place] = set()
        for which, done in places:
            reached.add((which, done))
            while done < len(self._tokens[which]) and self._tokens[which][done] is None:
                done += 1
                reached.add((which, done))
        return frozenset(reached)


def common_path(wanted: Sequence[Iterable[str]], unwanted: Sequence[Iterable[str]]) -> str | None:
    """A shortest path that a pattern of each of ``wanted`` matches and no pattern of ``unwanted`` does.

    None where there is no such path; ``UNDECIDED`` where the search was given up.
    """
    texts = [[*globs] for globs in (*wanted, *unwanted)]
    automata = [Alternatives(globs) for globs in texts]
    letters = _letters_told_apart(texts)
    needed = len(wanted)

    start = tuple(automaton.step(automaton.start(), "/") for automaton in automata)
    seen = {start}
    queue = deque([("/", start)])
    while queue:
        path, state = queue.popleft()
        matched = [automaton.matched(places) for automaton, places in zip(automata, state, strict=True)]
        if all(matched[:needed]) and not any(matched[needed:]):
            return path
        if len(seen) > _MAX_STATES:
            return UNDECIDED
        for letter in letters:
            after = tuple(automaton.step(places, letter) for automaton, places in zip(automata, state, strict=True))
            if after not in seen and all(after[:needed]):
                seen.add(after)
                queue.append((path + letter, after))
    return None


def _letters_told_apart(texts: Iterable[Iterable[str]]) -> list[str]:
    """One letter for each class of letters that no pattern tells apart, a readable one where the class has any.

    Whether a token takes a letter changes only at a letter that stands in the pattern, or just behind one.
    """
    bounds = {0}
    for globs in texts:
        for glob in globs:
            for letter in glob:
                bounds |= {ord(letter), min(ord(letter) + 1, 0x10FFFF)}
    lows = sorted(bounds)
    letters: list[str] = []
    for low, high in zip(lows, [*lows[1:], 0x110000], strict=True):
        letters.append(next((letter for letter in _READABLE if low <= ord(letter) < high), chr(low)))
    return sorted(letters, key=lambda letter: (_READABLE.find(letter) + 1 or len(_READABLE) + 1, letter))
