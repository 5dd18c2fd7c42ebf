"""Whose stream it is: a string made once, at the start, and compared before every read, poll, join and stop.

Three kinds, the first that applies:

1. ``principal:`` the principal that a middleware outside ours put into the scope, as (kind, issuer, subject); or what
   the ``owner=`` option says.
2. ``credential:`` where the app's own login is further in: a hash of the request's ``Authorization`` or session
   cookies with the stream's id. A logout, or another user's cookie, ends access.
3. "": neither. Whoever holds the stream's 128-bit id.

An error while finding out who asks is a refusal, never "nobody".
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..types import Scope
from ..wire import headers

#: Names under which frameworks keep a login. The values are opaque to us.
SESSION_COOKIES = frozenset({
    "sessionid", "session", "session_id", "sid", "_session_id", "connect.sid", "PHPSESSID", "JSESSIONID",
    "laravel_session", "fastapiusersauth", "access_token", "access_token_cookie", "auth_token", "token", "jwt",
    "next-auth.session-token", "authjs.session-token", ".AspNetCore.Cookies", "_oauth2_proxy",
})  # fmt: skip
_PREFIXES = ("__Host-", "__Secure-")

# Signed sessions, of which time and signature may be new at every response: itsdangerous' TimestampSigner (Starlette's
# payload is plain base64, Flask's URL-safe, with a dot before it where it is compressed) and Django's signed cookies.
_SIGNED_SESSION = re.compile(
    rb"([A-Za-z0-9_=.+/-]{2,})(?:\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}|:[A-Za-z0-9]{6}:[A-Za-z0-9_-]{27,})"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a request comes from, as far as streams care. ``account``: whose share of a bounded store it uses."""

    principal: str | None
    credential: bytes | None
    account: str

    def owner(self, stream: str) -> str:
        """The owner string of a stream that this request starts."""
        if self.principal is not None:
            return f"principal:{self.principal}"
        if self.credential is not None:
            return "credential:" + hashlib.sha256(stream.encode() + b"\0" + self.credential).hexdigest()
        return ""

    def owns(self, owner: str, stream: str) -> bool:
        """Whether a stream that was started under ``owner`` may be read by this request."""
        return owner == "" or hmac.compare_digest(owner.encode(), self.owner(stream).encode())

    @property
    def known(self) -> bool:
        """False where the request says nothing of who sent it."""
        return self.principal is not None or self.credential is not None


def identify(scope: Scope, owner: Callable[[Scope], str | None] | None, cookies: frozenset[str]) -> Identity:
    """Who ``scope``'s request comes from. Whatever goes wrong on the way is raised to the caller, who refuses."""
    if owner is not None:
        named = owner(scope)
        if named is not None and not isinstance(named, str):
            raise TypeError(f"owner= returned {type(named).__name__}, it must return a string or None")
        principal = f"given\0{named}" if named else None
    else:
        principal = principal_of(scope)
    if principal is not None:
        return Identity(principal, None, f"principal:{principal}")
    credential = credential_of(scope, cookies)
    if credential is not None:
        return Identity(None, credential, f"credential:{hashlib.sha256(credential).hexdigest()}")
    client = scope.get("client")
    return Identity(None, None, f"client:{client[0]}" if client else "client:")


def principal_of(scope: Scope) -> str | None:
    """(kind, issuer, subject) of the principal in the scope: Streamware's, Django's or Starlette's; None for nobody."""
    user = scope.get("user")
    if user is None or not getattr(user, "is_authenticated", False):
        return None
    subject = getattr(user, "subject", None)
    if subject is not None:
        return named(getattr(user, "issuer", ""), subject)
    kind = user.__class__  # not type(): Django's and Channels' users are lazy, and this is the real one's
    model = f"{kind.__module__}.{kind.__qualname__}"
    key = getattr(user, "pk", None)
    if key is not None:
        return f"django\0{model}\0{key}"
    try:
        identity = user.identity
    except (AttributeError, NotImplementedError):  # Starlette's BaseUser leaves it to the app
        identity = user.display_name
    if not identity:
        raise ValueError("the authenticated user in scope['user'] has neither an identity nor a display_name")
    return f"starlette\0{model}\0{identity}"


def named(issuer: object, subject: object) -> str:
    """(kind, issuer, subject) of a principal of Streamware's."""
    return f"principal\0{issuer}\0{subject}"


def who(principal: str) -> str:
    """A name for what ``principal_of`` found that tells nothing of it."""
    return hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()


def credential_of(scope: Scope, cookies: frozenset[str]) -> bytes | None:
    """What the request shows to the app's own login: ``Authorization``, else its session cookies."""
    given: Iterable[tuple[bytes, bytes]] = scope.get("headers") or ()
    authorization = headers.combined(given, b"authorization")
    if authorization:
        return b"authorization\0" + authorization
    jar = headers.combined(given, b"cookie")
    if not jar or not cookies:
        return None
    found: list[bytes] = []
    for pair in jar.replace(b",", b";").split(b";"):
        name, _, value = pair.strip().partition(b"=")
        text = name.decode("latin-1")
        for prefix in _PREFIXES:
            text = text.removeprefix(prefix)
        if text in cookies and value:
            signed = _SIGNED_SESSION.fullmatch(value)
            found.append(name + b"=" + (signed[1] if signed else value))
    return b"cookie\0" + b"\0".join(sorted(found)) if found else None
