"""What a model's tokens are to the estimate of them, learned from the answers that reported what they used.

A moving average for each model, within bounds: a model whose hidden reasoning costs more than all of its words is not
to make the words of others dear. The names of models come from requests, so no more than ``MAX_MODELS`` are kept.
"""

from __future__ import annotations

WEIGHT = 0.2
LEAST = 0.25
MOST = 4.0
#: Fewer estimated tokens than these teach nothing.
ENOUGH = 20
MAX_MODELS = 1000


class Calibration:
    """Factors by model, 1.0 for one that is not known."""

    __slots__ = ("_factors",)

    def __init__(self) -> None:
        self._factors: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._factors)

    def factor(self, model: str) -> float:
        """By what to multiply an estimate."""
        return self._factors.get(model, 1.0)

    def learn(self, model: str, estimated: float, actual: int) -> None:
        """Something that was ``estimated`` (by a factor of 1) proved to be so much."""
        if estimated < ENOUGH or actual <= 0:
            return
        ratio = min(max(actual / estimated, LEAST), MOST)
        known = self._factors.pop(model, None)
        if known is None and len(self._factors) >= MAX_MODELS:
            del self._factors[next(iter(self._factors))]  # the one that was learned of longest ago
        self._factors[model] = ratio if known is None else known + WEIGHT * (ratio - known)
