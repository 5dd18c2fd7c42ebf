"""RFC 9728: the metadata of a protected resource."""

from __future__ import annotations

import json

import pytest

from streamware import ConfigurationError, ResourceMetadata

SERVERS = ["https://idp.example"]


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.example", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example/", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example:8443/mcp", "https://api.example:8443/.well-known/oauth-protected-resource/mcp"),
        ("https://api.example/a/b/", "https://api.example/.well-known/oauth-protected-resource/a/b/"),
        ("http://127.0.0.1:8000/mcp", "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"),
        ("http://[::1]:8000", "http://[::1]:8000/.well-known/oauth-protected-resource"),
    ],
)
def test_the_well_known_segment_stands_before_the_resources_path(resource: str, url: str):
    metadata = ResourceMetadata(resource, authorization_servers=SERVERS)

    assert metadata.url == url
    assert metadata.url.endswith(metadata.path)


def test_the_document_says_what_the_middleware_does():
    metadata = ResourceMetadata(
        "https://api.example", authorization_servers=SERVERS, resource_name="Chat", extra={"tls_bound": False}
    )

    assert json.loads(metadata.document(scopes={"files", "chat"}, methods=["header"])) == {
        "resource": "https://api.example",
        "authorization_servers": SERVERS,
        "scopes_supported": ["chat", "files"],
        "bearer_methods_supported": ["header"],
        "resource_name": "Chat",
        "tls_bound": False,
    }


def test_members_without_a_value_are_left_out_and_scopes_may_be_given():
    plain = ResourceMetadata("https://api.example", authorization_servers=SERVERS)
    given = ResourceMetadata("https://api.example", authorization_servers=SERVERS, scopes_supported=["b", "a"])

    assert json.loads(plain.document(scopes=(), methods=["header"])).keys() == {
        *("resource", "authorization_servers", "bearer_methods_supported")
    }
    assert json.loads(given.document(scopes={"x"}, methods=[]))["scopes_supported"] == ["b", "a"]


@pytest.mark.parametrize(
    "resource",
    [
        *("", "api.example", "ftp://api.example", "http://api.example", "https://", "https://api.example#x", 5, None),
        *("https://api.example?x=1", "https://api.example/ü", 'https://api.example/"', "https://api.example:99999"),
        "https://[::1",
    ],
)
def test_a_resource_that_is_no_https_url_is_an_error(resource):
    with pytest.raises(ConfigurationError, match="ResourceMetadata: resource must be"):
        ResourceMetadata(resource, authorization_servers=SERVERS)
    with pytest.raises(ConfigurationError, match="ResourceMetadata: authorization_servers must be"):
        ResourceMetadata("https://api.example", authorization_servers=[resource])


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(ConfigurationError) as caught:
        ResourceMetadata("https://user:secret-word@api.example", authorization_servers=SERVERS)

    assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"authorization_servers": "https://idp.example"},
        {"authorization_servers": []},
        {"authorization_servers": SERVERS, "scopes_supported": "chat"},
        {"authorization_servers": SERVERS, "scopes_supported": [5]},
        {"authorization_servers": SERVERS, "extra": {"resource": "https://other.example"}},
        {"authorization_servers": SERVERS, "extra": {"x": object()}},
    ],
)
def test_wrong_options_are_errors(options):
    with pytest.raises(ConfigurationError, match="ResourceMetadata"):
        ResourceMetadata("https://api.example", **options)
