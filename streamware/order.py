"""The order of a ``Stack``: checked by rank, and when it is wrong, the right one is said.

Rules: ranks of ours never fall from the outside in; a middleware of ours that stands more than once has all its copies
side by side, and no path is touched by two of them; other people's middleware may stand anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from .exceptions import ConfigurationError
from .globs import UNDECIDED
from .middleware.base import BaseMiddleware, lowest_rank


@dataclass(frozen=True, slots=True)
class Layer:
    """One entry of the list. ``own``: what it built, if that is one of ours; ``text``: how the entry is written."""

    own: BaseMiddleware | None
    text: str

    @property
    def name(self) -> str:
        return type(self.own).__name__


def check_order(layers: Sequence[Layer]) -> None:
    """Check ``layers``, outermost first.

    :raises ConfigurationError: with the whole list in the right order, or with the path that two of a kind touch.
    """
    placed: dict[int, list[tuple[BaseMiddleware, Layer]]] = {}
    rank, outer = 0, ""
    for layer in layers:
        if layer.own is None:
            continue
        lowest = lowest_rank(layer.own.ranks, rank)
        if lowest is None:
            raise ConfigurationError(
                f"Stack: {layer.name} must stand outside {outer}. The order to use, outermost first"
                f"{' (... for the options that you gave)' if '...' in _written(layers) else ''}:\n\n"
                f"middleware=[\n{_written(right_order(layers))}]"
            )
        placed.setdefault(lowest, []).append((layer.own, layer))
        rank, outer = lowest, layer.name
    for copies in placed.values():
        for one, another in combinations(copies, 2):
            _check_disjoint(one, another)


def right_order(layers: Sequence[Layer]) -> list[Layer]:
    """``layers`` as they should stand. One of other people's stays just outside the one of ours that it was outside."""
    groups: list[tuple[int, list[Layer]]] = []
    group: list[Layer] = []
    for place, layer in enumerate(layers):
        group.append(layer)
        if layer.own is not None:
            inside = [later.own.ranks[-1] for later in layers[place + 1 :] if later.own is not None]
            # Where it has a choice, it goes by what it was put outside of.
            ranks = layer.own.ranks
            groups.append((ranks[0] if any(rank < ranks[-1] for rank in inside) else ranks[-1], group))
            group = []
    groups.sort(key=lambda ranked: ranked[0])
    return [layer for _, ordered in groups for layer in ordered] + group


def _check_disjoint(one: tuple[BaseMiddleware, Layer], another: tuple[BaseMiddleware, Layer]) -> None:
    path = one[0].selection.overlap(another[0].selection)
    if path is None:
        return
    found = "may both touch the same path" if path == UNDECIDED else f"both touch {path!r}"
    advice = "use simpler patterns" if path == UNDECIDED else "give each its own paths="
    names = " and ".join(dict.fromkeys([one[1].name, another[1].name]))
    raise ConfigurationError(
        f"Stack: {names} may stand more than once only with disjoint paths, but these {found}; {advice}, or exclude= "
        f"in one what the other has in paths=:\n\n{_written([one[1], another[1]])}"
    )


def _written(layers: Sequence[Layer]) -> str:
    return "".join(f"    {layer.text},\n" for layer in layers)
