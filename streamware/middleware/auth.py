"""``AuthMiddleware``: nobody reaches the app without a credential that was verified, and nobody sees that credential.

Where credentials stand in a request is ``wire/credentials.py``'s to know, what a refusal says ``wire/challenge.py``'s,
whose token it is a verifier's. This module brings them together, for one connection at a time.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from ..auth.credentials import AuthCredentials
from ..auth.endpoints import STORE_RETRY, MetadataEndpoint, TicketEndpoint
from ..auth.metadata import ResourceMetadata, checked_url
from ..auth.principal import AnonymousPrincipal, Principal
from ..auth.requirements import Requirements
from ..auth.several import Several
from ..auth.tickets import Tickets
from ..auth.verifier import TokenRefused, Verifier, VerifierUnavailable
from ..clock import LoopClock
from ..exceptions import ConfigurationError, StoreError
from ..observe import NullObserver, Observer, OnceLog
from ..paths import path_within_mount
from ..record import KEY, Record, record_of
from ..streams.inbound import Inbound, has_no_body
from ..streams.options import DISCARD_WAIT
from ..types import ASGIApp, Message, Receive, Scope, Send
from ..wire import credentials as wire
from ..wire import headers
from ..wire.challenge import INSUFFICIENT_SCOPE, INVALID_REQUEST, INVALID_TOKEN, Refusal
from ..wire.credentials import NO_OFFER, Credential, CredentialError, Offer
from ..wire.denial import WebSocketReject, deny, reject_websocket
from .base import BaseMiddleware

logger = logging.getLogger("streamware.auth")

#: With which code a WebSocket is closed that was accepted only to be refused, by the status that HTTP would have.
CLOSE_CODES: Mapping[int, int] = {400: 4400, 401: 3000, 403: 3003, 503: 4503}
