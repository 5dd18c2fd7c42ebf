"""What a request may do, in the shape in which Starlette keeps it in ``scope["auth"]``."""

from __future__ import annotations

from functools import cached_property

from .principal import Principal

#: What Starlette's own examples ask for in ``@requires``: somebody is there, whatever the token allows.
AUTHENTICATED = "authenticated"


class AuthCredentials:
    """``scopes``: those of the token, and ``authenticated`` where the principal is no anonymous one. Starlette's class
    of that name has the same attribute, and that is all that ``request.auth`` and ``@requires`` look at."""

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    @cached_property
    def scopes(self) -> list[str]:
        """A list, as Starlette has it; made when somebody looks."""
        principal = self._principal
        return [AUTHENTICATED, *principal.scopes] if principal.is_authenticated else []
