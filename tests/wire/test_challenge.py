"""What a refusal says to the client, by RFC 6750 and RFC 9728."""

from __future__ import annotations

import pytest

from streamware.wire.challenge import INSUFFICIENT_SCOPE, INVALID_REQUEST, INVALID_TOKEN, Refusal, quoted

METADATA = "https://api.example/.well-known/oauth-protected-resource"


@pytest.mark.parametrize(
    ("refusal", "challenge"),
    [
        pytest.param(Refusal(401, "missing"), 'Bearer realm="api"', id="no credential: no error"),
        pytest.param(
            Refusal(401, "missing", scopes=("a", "b")), 'Bearer realm="api", scope="a b"', id="what to ask for"
        ),
        pytest.param(
            Refusal(401, "expired", INVALID_TOKEN),
            'Bearer realm="api", error="invalid_token", '
            'error_description="The access token is not valid: it may be malformed, expired or revoked."',
            id="a bad token",
        ),
        pytest.param(
            Refusal(403, "scope", INSUFFICIENT_SCOPE, ("chat", "files")),
            'Bearer realm="api", error="insufficient_scope", '
            'error_description="The access token does not allow this.", scope="chat files"',
            id="scopes that are missing",
        ),
        pytest.param(
            Refusal(400, "several", INVALID_REQUEST),
            'Bearer realm="api", error="invalid_request", error_description="The request must show exactly one access '
            'token, in one of the ways that are accepted here."',
            id="a bad request",
        ),
    ],
)
def test_a_challenge_names_the_standard_error_and_nothing_of_the_cause(refusal: Refusal, challenge: str):
    assert refusal.challenge("api").decode() == challenge


def test_a_challenge_names_the_metadata():
    assert (
        Refusal(401, "missing").challenge("api", METADATA)
        == f'Bearer realm="api", resource_metadata="{METADATA}"'.encode()
    )


def test_values_are_quoted():
    assert quoted('a "b" \\ c') == r'"a \"b\" \\ c"'
    assert Refusal(401, "missing").challenge('my "api"') == rb'Bearer realm="my \"api\""'


@pytest.mark.parametrize(
    ("refusal", "challenged"),
    [
        (Refusal(401, "missing"), True),
        (Refusal(400, "several", INVALID_REQUEST), True),
        (Refusal(403, "scope", INSUFFICIENT_SCOPE), True),
        (Refusal(403, "cross_site"), False),
        (Refusal(503, "keys", retry_after=3.0), False),
        (Refusal(429, "ticket_limit", retry_after=3.0), False),
    ],
)
def test_only_what_a_token_could_change_is_challenged(refusal: Refusal, challenged: bool):
    denial = refusal.denial("api")

    assert bool(denial.headers) is challenged
    assert denial.status == refusal.status
    assert denial.retry_after == refusal.retry_after
    assert denial.title
    assert denial.detail


def test_every_cause_of_one_error_looks_the_same_to_the_client():
    answers = {repr(Refusal(401, reason, INVALID_TOKEN).denial("api")) for reason in ("expired", "signature", "issuer")}

    assert len(answers) == 1
