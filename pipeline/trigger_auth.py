"""Who sent a message: the OpenID token that Pub/Sub and Eventarc sign each delivery with.

The token is a JWT of Google's; that it is theirs, is not expired and was made for this service
(audience) is checked by google-auth, that the service account in it is an expected one here. See
"Authentication for push subscriptions" in Pub/Sub's documentation.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from schema.errors import CortexflowError

MIN_SECONDS, MAX_SECONDS = 60, 6 * 3600  # for which Google's keys are kept
SKEW_SECONDS = 10  # by which clocks may differ
MAX_TOKEN = 8 << 10


class Unauthorised(CortexflowError):
    """The sender did not say who it is, or could not prove it."""


class Forbidden(CortexflowError):
    """The sender is known, and is not the expected one."""


class KeysUnavailable(CortexflowError):
    """Google's public keys cannot be had just now: nobody can be told from anybody."""


class TokenCheck:
    """Lets through what certain service accounts sent to one audience.

    Args:
        audience: as the subscription names it.
        senders: e-mail addresses of service accounts.
        fetch: a `google.auth.transport.Request`; None makes one that asks over HTTPS.
    """

    def __init__(
        self, audience: str, senders: tuple[str, ...], fetch: Callable[..., Any] | None = None
    ):
        self._audience = audience
        self._senders = frozenset(senders)
        self._keys = _Kept(fetch)

    def __call__(self, headers: Mapping[str, str]) -> str:
        """Checks one request. Blocks while keys are fetched, which happens seldom.

        Args:
            headers: lower-case names.

        Returns:
            The sender's e-mail address.

        Raises:
            Unauthorised: no token, or not a valid one.
            Forbidden: of another account.
            KeysUnavailable: it cannot be told now.
        """
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.oauth2 import id_token

        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
            raise Unauthorised(
                "The request has no bearer token. Give the push subscription a service account to "
                "sign with (--push-auth-service-account)."
            )
        try:
            claims = id_token.verify_oauth2_token(
                token.strip(), self._keys, self._audience, clock_skew_in_seconds=SKEW_SECONDS
            )
        except TransportError as error:
            raise KeysUnavailable(f"Google's keys cannot be fetched: {error}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, GoogleAuthError) as error:
            raise Unauthorised(f"The token is not valid: {error}.") from None
        sender = str(claims.get("email", ""))
        if sender not in self._senders or claims.get("email_verified") is not True:
            raise Forbidden(
                f"Tokens of {sender or 'nobody'} are not accepted here. --sender names whose are."
            )
        return sender


class _Kept:
    """A transport that asks again only when an answer has aged, as its Cache-Control says."""

    def __init__(self, fetch: Callable[..., Any] | None):
        self._fetch = fetch
        self._answers: dict[str, tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def __call__(self, url: str, method: str = "GET", **keywords: Any) -> Any:
        with self._lock:
            until, answer = self._answers.get(url, (0.0, None))
            if time.monotonic() < until:
                return answer
            if self._fetch is None:
                from google.auth.transport.requests import Request

                self._fetch = Request()
            answer = self._fetch(url, method=method, **keywords)
            if answer.status == 200:
                self._answers[url] = (time.monotonic() + _age(answer.headers), answer)
            return answer


def _age(headers: Mapping[str, str]) -> int:
    lower = {name.lower(): value for name, value in headers.items()}
    found = re.search(r"max-age=(\d{1,9})", lower.get("cache-control", ""))
    return min(max(int(found[1]) if found else 0, MIN_SECONDS), MAX_SECONDS)
