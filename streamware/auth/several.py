"""Several verifiers as one: the first that knows the token decides who it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..exceptions import ConfigurationError
from .principal import Principal
from .verifier import TokenRefused, Verifier, VerifierUnavailable


class Several:
    """Asks each verifier in turn. A token that one refuses may be another's, so it is refused only where all refuse it;
    where one of them could not tell, that cannot be told either."""

    def __init__(self, verifiers: Sequence[Verifier]) -> None:
        self._verifiers = tuple(verifiers)

    def recall(self, token: str) -> Principal | None:
        for verifier in self._verifiers:
            principal = verifier.recall(token)
            if principal is not None:
                return principal
        return None

    async def verify(self, token: str, *, client: str = "") -> Principal:
        refused: TokenRefused | None = None
        away: VerifierUnavailable | None = None
        for verifier in self._verifiers:
            try:
                return await verifier.verify(token, client=client)
            except TokenRefused as error:
                refused = error
            except VerifierUnavailable as error:
                away = error if away is None or error.retry_after < away.retry_after else away
        raise away or refused or TokenRefused("malformed")

    async def startup(self) -> None:
        for verifier in self._verifiers:
            await verifier.startup()

    async def aclose(self) -> None:
        for verifier in self._verifiers:
            await verifier.aclose()


def one_verifier(owner: str, verifier: Verifier | None, verifiers: Iterable[Verifier] | None) -> Verifier:
    """The options ``verifier`` and ``verifiers`` of ``owner``, of which one is to be given, as one verifier."""
    expected = "a verifier, as JWTVerifier(…)"
    if (verifier is None) == (verifiers is None):
        raise ConfigurationError.option(owner, "verifier", verifier, f"{expected}, or else verifiers a list")
    given = [verifier] if verifier is not None else list(verifiers or ())
    if not given:
        raise ConfigurationError.option(owner, "verifiers", verifiers, "a list of verifiers, at least one")
    for each in given:
        if not all(callable(getattr(each, verb, None)) for verb in ("recall", "verify", "startup", "aclose")):
            raise ConfigurationError.option(owner, "verifier", each, expected)
    return given[0] if len(given) == 1 else Several(given)
