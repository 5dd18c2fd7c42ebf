"""Which limits a request has, from what the operator wrote.

Limits are written in the syntax of the ``limits`` package: ``"60/minute"``, ``"10 per 5 minutes"``, several at once as
``"10/second; 1000/day"`` or as a list. Wherever limits are wanted there may be

* one such text, or a list of them: for everybody;
* a mapping whose keys are glob patterns on the path within the mount (they begin with ``/`` or ``*``): by path, the
  first that matches; what no pattern matches is not limited;
* a mapping whose keys are names of plans, with one called ``default``: by what ``plan`` says of the request;
* a function of the scope that returns one of the first kind, or None for no limits.

A mapping by path may hold any of the others. A path that may be taken for another one further in comes under all of
its patterns: nobody is to choose between them by writing ``/cheap/../dear``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, cast

from ..checks import is_whole
from ..exceptions import ConfigurationError
from ..paths import FirstMatch, is_ambiguous, patterns
from ..types import Scope
from .base import INFINITY, Limit

Written: TypeAlias = str | Sequence[str]
Choice: TypeAlias = Written | Callable[[Scope], Written | None] | None
#: What an option that takes limits may be.
Limits: TypeAlias = Choice | Mapping[str, Choice] | Mapping[str, Choice | Mapping[str, Choice]]
Plan: TypeAlias = Callable[[Scope], str | None]
#: What an option that takes one number may be.
Most: TypeAlias = int | Mapping[str, int | None] | Callable[[Scope], int | None] | None
MostRule: TypeAlias = Callable[[Scope, str], tuple[int | None, str]]
Rule: TypeAlias = Callable[[Scope, str], tuple[Limit, ...]]

DEFAULT_PLAN = "default"
#: Texts that a function returned and that were read before.
MAX_READ = 1000
#: No limit is larger: what Redis computes with holds whole numbers up to 2**53.
MAX_AMOUNT = 10**12
MAX_WINDOW = 10 * 366 * 86_400

_EXPECTED = 'limits as "60/minute", "10 per 5 minutes; 1000/day" or a list of such texts'


class Rules:
    """Reads one option. ``counter``: opens the names of its counters. ``fixed``: of the limits' windows."""

    def __init__(self, owner: str, option: str, counter: str, *, fixed: bool, plan: Plan | None) -> None:
        self._owner = owner
        self._option = option
        self._counter = counter
        self._fixed = fixed
        self._plan = plan

    def rule(self, given: Limits) -> Rule | None:
        """What ``given`` says of each request; None where it limits nothing.

        :raises ConfigurationError: it cannot be read.
        """
        entries = _mapping(given)
        if entries is None:
            return self._choice(cast("Choice", given), self._counter)
        if not entries or not all(isinstance(key, str) for key in entries):
            raise self._error(entries, f"{_EXPECTED}, a function, or a mapping of paths or of plans to them")
        if not any(key.startswith(("/", "*")) for key in entries):
            return self._by_plan(cast("Mapping[str, Choice]", entries), self._counter)
        by_path: FirstMatch[Rule | None] = FirstMatch()
        every: list[Rule] = []
        for glob, within in entries.items():
            patterns(self._owner, self._option, [glob])
            counter = f"{self._counter} {glob}"
            plans = _mapping(within)
            rule = (
                self._choice(cast("Choice", within), counter)
                if plans is None
                else self._by_plan(cast("Mapping[str, Choice]", plans), counter)
            )
            by_path.add(glob, rule)
            if rule is not None:
                every.append(rule)

        def choose(scope: Scope, path: str) -> tuple[Limit, ...]:
            if is_ambiguous(path):
                return tuple([limit for rule in every for limit in rule(scope, path)])
            rule = by_path.find(path, None)
            return () if rule is None else rule(scope, path)

        return choose

    def _by_plan(self, plans: Mapping[str, Choice], counter: str) -> Rule:
        plan = self._plan
        if plan is None or DEFAULT_PLAN not in plans:
            missing = "plan= to tell which of them a request has" if plan is None else "one called 'default' among them"
            raise ConfigurationError(f"{self._owner}: {self._option} names plans, which want {missing}")
        rules = {name: self._choice(choice, counter) for name, choice in plans.items()}

        def choose(scope: Scope, path: str) -> tuple[Limit, ...]:
            name = plan(scope)
            rule = rules[name if name is not None and name in rules else DEFAULT_PLAN]
            return () if rule is None else rule(scope, path)

        return choose

    def _choice(self, given: Choice, counter: str) -> Rule | None:
        if given is None:
            return None
        if not callable(given):
            limits = self.read(given, counter)
            return lambda scope, path: limits
        function = given
        known: dict[str | tuple[str, ...], tuple[Limit, ...]] = {}

        def choose(scope: Scope, path: str) -> tuple[Limit, ...]:
            written = function(scope)
            if written is None:
                return ()
            key = written if isinstance(written, str) else tuple(written)
            limits = known.get(key)
            if limits is None:
                limits = self.read(key, counter)
                if len(known) < MAX_READ:
                    known[key] = limits
            return limits

        return choose

    def read(self, written: Written, counter: str) -> tuple[Limit, ...]:
        """The limits of one text, or of several. Of two with the same window the smaller one counts."""
        from limits import parse_many

        texts = [written] if isinstance(written, str) else written
        found: dict[str, Limit] = {}
        if not _are_texts(texts):
            raise self._error(written, _EXPECTED)
        for text in texts:
            try:
                items = parse_many(text)
            except ValueError:
                raise self._error(text, _EXPECTED) from None
            for item in items:
                if not 1 <= item.amount <= MAX_AMOUNT:
                    raise self._error(text, f"limits of 1 to {MAX_AMOUNT:,}")
                if item.get_expiry() > MAX_WINDOW:
                    raise self._error(text, "limits within ten years")
                every = f"{item.multiples} {item.GRANULARITY.name}" if item.multiples > 1 else item.GRANULARITY.name
                limit = Limit(item.amount, item.get_expiry(), f"{item.amount}/{every}", counter, self._fixed)
                known = found.get(limit.place)
                if known is None or limit.amount < known.amount:
                    found[limit.place] = limit
        return tuple(found.values())

    def _error(self, received: object, expected: str) -> ConfigurationError:
        return ConfigurationError.option(self._owner, self._option, received, expected)


def _mapping(given: object) -> Mapping[str, Choice | Mapping[str, Choice]] | None:
    """``given`` where it is a mapping. Type checkers lose what is in it: a function might be one too."""
    return cast("Mapping[str, Choice | Mapping[str, Choice]]", given) if isinstance(given, Mapping) else None


def _are_texts(given: object) -> bool:
    if not isinstance(given, Sequence) or not given:
        return False
    return all(isinstance(text, str) for text in cast("Sequence[object]", given))


def most_rule(owner: str, option: str, place: str, given: Most, plan: Plan | None) -> MostRule | None:
    """What an option says that takes numbers by path, by plan or by request: how many, None for any number, and the
    place where they are counted.

    :raises ConfigurationError: it cannot be read.
    """
    expected = "a number of 1 or more, None, a function of the scope, or a mapping of paths or of plans to numbers"

    def check(value: object) -> int | None:
        if value is None or is_whole(value):
            return value
        raise ConfigurationError.option(owner, option, value, expected)

    if given is None:
        return None
    if callable(given):
        function = given
        return lambda scope, path: (check(function(scope)), place)
    if not isinstance(given, Mapping):
        most = check(given)
        return lambda scope, path: (most, place)
    numbers = {key: check(value) for key, value in given.items()}
    if any(key.startswith(("/", "*")) for key in numbers):
        patterns(owner, option, numbers)
        places: dict[str, tuple[int | None, str]] = {glob: (n, f"{place} {glob}") for glob, n in numbers.items()}
        by_path = FirstMatch(places)
        fewest = min(places.values(), key=lambda found: INFINITY if found[0] is None else found[0])
        return lambda scope, path: fewest if is_ambiguous(path) else by_path.find(path, (None, place))
    if plan is None or DEFAULT_PLAN not in numbers:
        raise ConfigurationError(f"{owner}: {option} names plans, which want plan=, and one called 'default'")

    def of_plan(scope: Scope, path: str) -> tuple[int | None, str]:
        name = plan(scope)
        return numbers[name if name is not None and name in numbers else DEFAULT_PLAN], place

    return of_plan
