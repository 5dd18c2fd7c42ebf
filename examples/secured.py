"""Four apps that know who asks, each behind the same ``AuthMiddleware``.

    uvicorn examples.secured:starlette_secured
    curl -H "Authorization: Bearer ada-0123456789abcdef" http://127.0.0.1:8000/me
    curl -N -H "Authorization: Bearer ada-0123456789abcdef" http://127.0.0.1:8000/events

``/open`` can be asked for by anybody; ``/events`` wants the scope ``chat``, which the apps themselves ask for.
"""

from __future__ import annotations

from streamware import AuthMiddleware

from .keys import KeyVerifier
from .secured_channels_app import app as channels_app
from .secured_django_app import app as django_app
from .secured_fastapi_app import app as fastapi_app
from .secured_starlette_app import app as starlette_app

KEYS = {
    "ada-0123456789abcdef": ("ada", ["chat"]),
    "bob-0123456789abcdef": ("bob", []),
}
OPEN = ["/open", "/docs", "/openapi.json"]

verifier = KeyVerifier(KEYS)
starlette_secured = AuthMiddleware(starlette_app, verifier=verifier, optional=OPEN)
fastapi_secured = AuthMiddleware(fastapi_app, verifier=verifier, optional=OPEN)
django_secured = AuthMiddleware(django_app, verifier=verifier, optional=OPEN)
channels_secured = AuthMiddleware(channels_app, verifier=verifier, optional=OPEN)
