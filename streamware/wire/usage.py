"""What a model's answer has used: the counts of one stream, as they come and at its end.

Rules:

1. What providers report is cumulative. Of one response the greatest value of each field counts; nothing is summed but
   the responses of several ids in one stream, and the parts of a total, which is never believed as it is.
2. What was not reported is estimated: a token is four bytes of UTF-8 text, times what the model has proved to need. A
   report takes the place of what was estimated up to it, and what comes after is estimated again.
3. Constant memory, whatever the stream.

Which event of which provider says what is in ``usage_formats.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of UTF-8 text that make a token, where nobody says how many they are: right for English and code, and a fifth
#: too many for Chinese.
BYTES_PER_TOKEN = 4
#: No count is believed beyond this.
MAX_TOKENS = 10**12
#: Responses of one stream that are told apart; of those before only the sum is remembered.
MAX_RESPONSES = 64


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What was used, in tokens.

    ``input``: the prompt, all of it; ``cached``: as much of it as came from the provider's cache; ``output``: the
    answer, all of it; ``reasoning``: as much of it as was reasoning. ``estimated``: a part of it is an estimate.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0
    estimated: bool = False

    @property
    def total(self) -> int:
        """``input`` and ``output``."""
        return self.input + self.output


class Tally:
    """What one response has reported, and the bytes of text that came since. ``events``: how many were its own."""

    __slots__ = ("cached", "events", "finished", "input", "output", "pending", "reasoning")

    def __init__(self) -> None:
        self.input = self.output = self.cached = self.reasoning = self.pending = self.events = 0
        self.finished = False


class Counts:
    """The counts of one stream.

    :param prompt: the estimate of the prompt, which counts until one is reported.
    :param factor: what the tokens of this model are to four bytes each.

    ``recognised``: something in it was an event of a provider's; ``unknown``: bytes of events of which nothing is
    known, which count where none was. ``reasoned``: some of the text was reasoning. ``errors``: events that could not
    be read; ``oversize``: those too large to be. ``current``: the response under way, called ``name``; ``pending``:
    bytes of text that no report has covered. ``dialect``: whose events they are: "chat", "responses", "anthropic",
    "gemini" or "ollama".
    """

    __slots__ = (
        "_covered", "_past", "_replaced", "_reported", "_scale", "_stable", "_tallies", "current", "dialect", "errors",
        "knows", "name", "oversize", "pending", "prompt", "reasoned", "recognised", "unknown",
    )  # fmt: skip

    def __init__(self, *, prompt: int = 0, factor: float = 1.0) -> None:
        self.prompt = prompt
        self.knows = False  # an input was reported
        self.recognised = self.reasoned = False
        self.dialect = ""
        self.unknown = self.errors = self.oversize = 0
        self._scale = factor / BYTES_PER_TOKEN
        self.current = Tally()
        self.name: str | None = None
        self._tallies: dict[str | None, Tally] = {None: self.current}
        self._past = Tally()  # of responses that are told apart no more
        self._replaced: set[str] = set()  # ids that had one event only
        self._stable = False  # an id has come again, so each is a response's
        self._reported = 0
        self._covered = 0  # bytes of text for which a report has come
        self.pending = 0

    # -- what comes

    def enter(self, name: str | None) -> None:
        """An event of the response ``name``; None: of the one under way."""
        if name is not None and name != self.name:
            self._switch(name)
        self.current.events += 1

    def text(self, size: int) -> None:
        """``size`` bytes of the model's own words."""
        self.current.pending += size
        self.pending += size

    def report(self, given: int | None, output: int | None, cached: int = 0, reasoning: int = 0) -> None:
        """What the response under way has used so far, by its provider; None for what that does not say."""
        tally = self.current
        if given is not None and 0 <= given <= MAX_TOKENS:
            self.knows = True
            if given > tally.input:
                self._reported += given - tally.input
                tally.input = given
        if output is not None and 0 <= output <= MAX_TOKENS:
            if output > tally.output:
                self._reported += output - tally.output
                tally.output = output
            if tally.pending:
                self._covered += tally.pending
                self.pending -= tally.pending
                tally.pending = 0
        if cached > tally.cached:
            tally.cached = cached
        if reasoning > tally.reasoning:
            tally.reasoning = reasoning

    def finish(self) -> None:
        """The response under way is complete, but for what is reported of it."""
        self.current.finished = True

    def begin(self) -> None:
        """What comes is of another response than what is complete, where these have no ids."""
        if self.current.finished:
            self._fold(self.name)
            self.current = self._tallies[self.name] = Tally()

    # -- what it comes to

    @property
    def used(self) -> int:
        """Tokens so far."""
        if self.knows:
            if not self.pending:
                return self._reported
            return self._reported + int(self.pending * self._scale + 0.999)
        if self.recognised:
            return self._reported + int(self.pending * self._scale + 0.999) + self.prompt
        return int(self.unknown * self._scale + 0.999) + self.prompt

    @property
    def usage(self) -> TokenUsage:
        """The same in its parts."""
        tallies = [self._past, *self._tallies.values()]
        text = self.pending if self.recognised else self.unknown
        prompt = 0 if self.knows else self.prompt
        return TokenUsage(
            sum(tally.input for tally in tallies) + prompt,
            sum(tally.output for tally in tallies) + int(text * self._scale + 0.999),
            sum(tally.cached for tally in tallies),
            sum(tally.reasoning for tally in tallies),
            estimated=text > 0 or prompt > 0,
        )

    @property
    def seen(self) -> int:
        """Bytes of text in all."""
        return self._covered + self.pending

    # -- which response

    def _switch(self, name: str) -> None:
        current = self.current
        found = self._tallies.get(name)
        if found is None:
            if name in self._replaced:
                self._stable = True
            if self._stable or current.finished or current.events > 1:
                found = self._tallies[name] = Tally()
                if len(self._tallies) > MAX_RESPONSES:
                    self._fold(next(iter(self._tallies)))
            else:
                # Some servers give each event another id, and report the whole in each. Summed up, that would be as
                # many times as much as there are events.
                del self._tallies[self.name]
                found = self._tallies[name] = current
                found.events = 0
                if self.name is not None and len(self._replaced) < MAX_RESPONSES:
                    self._replaced.add(self.name)
        else:
            self._stable = True
        self.current = found
        self.name = name

    def _fold(self, name: str | None) -> None:
        past, tally = self._past, self._tallies.pop(name)
        past.input += tally.input
        past.output += tally.output
        past.cached += tally.cached
        past.reasoning += tally.reasoning
