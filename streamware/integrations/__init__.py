"""What makes frameworks see the principal as their own user. Each module imports its framework; no other imports it.

Starlette needs none: ``request.user``, ``request.auth`` and ``@requires`` read what ``AuthMiddleware`` leaves. Nor does
Channels: a consumer finds the principal in ``scope["user"]``.
"""
