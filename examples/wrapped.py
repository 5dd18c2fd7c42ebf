"""The four example apps, wrapped. Serve one with ``uvicorn examples.wrapped:starlette_wrapped``.

``always``: a POST by plain ``fetch`` or ``curl`` does not say that it wants an event stream, so the path is named.
"""

from __future__ import annotations

from streamware import wrap

from .bare_asgi_app import app as bare_asgi_app
from .django_app import app as django_app
from .fastapi_app import app as fastapi_app
from .starlette_app import app as starlette_app

starlette_wrapped = wrap(starlette_app, always=["/generate"])
fastapi_wrapped = wrap(fastapi_app, always=["/generate"])
django_wrapped = wrap(django_app, always=["/generate"])
bare_asgi_wrapped = wrap(bare_asgi_app, always=["/generate"])
