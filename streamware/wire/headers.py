"""Raw header lists, as ASGI carries them: look-ups, changes, and the few header values that Streamware reads.

Names compare case-insensitively, repeated lines are kept, and no list that comes in is ever changed: apps and servers
may hold on to theirs. Reading never raises; what is malformed is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..types import RawHeaders, Scope

Headers = Iterable[tuple[bytes, bytes]]

_ZERO = re.compile(rb"0(?:\.0*)?").fullmatch
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# Everything up to the delimiter, with quoted strings taken whole; an unclosed quote takes the rest.
_ITEM = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))+', re.DOTALL)
_PARAMETER = re.compile(rb'(?:[^";]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))+', re.DOTALL)


def get(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first line called ``name``."""
    name = name.lower()
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return None


def get_all(headers: Headers, name: bytes) -> list[bytes]:
    """The values of all lines called ``name``, in order."""
    name = name.lower()
    return [value for key, value in headers if key.lower() == name]


def combined(headers: Headers, name: bytes) -> bytes | None:
    """The lines called ``name`` as one value (RFC 9110, section 5.3); None where there is none."""
    values = get_all(headers, name)
    return b", ".join(values) if values else None


def without(headers: Headers, *names: bytes) -> RawHeaders:
    """``headers`` less the lines called any of ``names``."""
    gone = {name.lower() for name in names}
    return [line for line in headers if line[0].lower() not in gone]


def replaced(headers: Headers, name: bytes, value: bytes) -> RawHeaders:
    """``headers`` with one line ``name: value``, in the place of the first that had that name, or at the end."""
    name = name.lower()
    result: RawHeaders = []
    placed = False
    for line in headers:
        if line[0].lower() != name:
            result.append(line)
        elif not placed:
            placed = True
            result.append((name, value))
    if not placed:
        result.append((name, value))
    return result


def merge_vary(headers: Headers, *names: bytes) -> RawHeaders:
    """``headers`` whose ``Vary`` also lists ``names``; as it is where it lists them, or ``*``, already."""
    headers = list(headers)
    listed = [item for value in get_all(headers, b"vary") for item in split_list(value)]
    known = {item.lower() for item in listed}
    missing = [name for name in names if name.lower() not in known]
    if b"*" in known or not missing:
        return headers
    return replaced(headers, b"vary", b", ".join(listed + missing))


def media_type(value: bytes | None) -> bytes:
    """The essence of a Content-Type, ``type/subtype`` in lower case; b"" where there is none."""
    return value.partition(b";")[0].strip(b" \t").lower() if value else b""


def no_store(headers: Headers) -> RawHeaders:
    """``headers`` with ``Cache-Control: no-store``. Of the app's own directives only ``no-transform`` stays: it is
    about intermediaries that change bodies, and the others would contradict."""
    headers = list(headers)
    directives = {item.lower() for value in get_all(headers, b"cache-control") for item in split_list(value)}
    value = b"no-store, no-transform" if b"no-transform" in directives else b"no-store"
    return replaced(headers, b"cache-control", value)


def names_media_type(accept: bytes | None, media_type: bytes) -> bool:
    """True where ``accept`` names ``media_type`` itself, with a quality above 0. Wildcards do not count: they are what
    a client sends that has no idea of the media type."""
    if not accept:
        return False
    if accept == media_type:
        return True
    if media_type not in accept.lower():
        return False
    for item in split_list(accept):
        essence, *parameters = _parts(item)
        if essence.lower() == media_type and not any(_is_zero_quality(parameter) for parameter in parameters):
            return True
    return False


def parse_prefer(values: Iterable[bytes]) -> dict[str, str]:
    """The preferences of all ``Prefer`` lines (RFC 7240) by lower-case name, with "" for one without a value. The
    first of a name wins; parameters are ignored."""
    preferences: dict[str, str] = {}
    # Line by line: a quote that is never closed must not swallow the lines behind it.
    for item in (item for value in values for item in split_list(value)):
        name, _, value = _parts(item)[0].partition(b"=")
        name = name.rstrip(b" \t")
        if not _TOKEN(name):
            continue
        value = value.strip(b" \t")
        if value.startswith(b'"'):
            if len(value) < 2 or not value.endswith(b'"'):
                continue  # never closed
            value = _ESCAPED.sub(rb"\1", value[1:-1])
        preferences.setdefault(name.decode("ascii").lower(), value.decode("latin-1"))
    return preferences


def is_token(value: bytes) -> bool:
    """Whether ``value`` is a token (RFC 9110, section 5.6.2), as names of headers and methods are."""
    return _TOKEN(value) is not None


def is_preflight(scope: Scope) -> bool:
    """True for a CORS preflight: OPTIONS with Origin and Access-Control-Request-Method."""
    if scope.get("type") != "http" or scope.get("method") != "OPTIONS":
        return False
    headers = scope["headers"]
    return get(headers, b"origin") is not None and get(headers, b"access-control-request-method") is not None


def split_list(value: bytes) -> list[bytes]:
    """The items of a comma-separated list; commas within quoted strings separate nothing, empty items are dropped."""
    items = _ITEM.findall(value) if b'"' in value else value.split(b",")
    return [stripped for item in items if (stripped := item.strip(b" \t"))]


def _parts(item: bytes) -> list[bytes]:
    """One item of a list, split at its semicolons: the value, which may be empty, and its parameters."""
    parts = _PARAMETER.findall(b" " + item) if b'"' in item else item.split(b";")
    return [part.strip(b" \t") for part in parts]


def _is_zero_quality(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip(b" \t").lower() == b"q" and _ZERO(value.strip(b" \t")) is not None
