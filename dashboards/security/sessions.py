"""Who may do what in a service: the token, the cookie of whoever signed in with it, and how often anybody may try."""

import hmac
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

COOKIE = "vittle_session"
CSRF_HEADER = "X-CSRF-Token"
SESSION_SECONDS = 12 * 3600
ATTEMPTS = RateLimitItemPerMinute(10, namespace="attempts")
CHANGES = RateLimitItemPerMinute(30, namespace="changes")


@dataclass(frozen=True)
class Session:
    """Somebody who signed in; `csrf` is what their pages send with every change."""

    csrf: str


class Access:
    """Knows the token, and tells by it who may do what.

    A cookie is a time and a random name, signed with a key made from the token: it outlives a restart with the same token, ends
    by itself, and gives nothing away.

    Args:
        token: what clients send as `Authorization: Bearer`, and people sign in with.
        public: whether reading takes it as well as changing.
        attempts: how often one client may give a wrong token.
        changes: how often one client may change something.
    """

    def __init__(
        self, token: str, *, public: bool, attempts: RateLimitItem = ATTEMPTS, changes: RateLimitItem = CHANGES
    ) -> None:
        self.public, self.attempts, self.changes = public, attempts, changes
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"vittle sessions", sha256)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def knows(self, token: str) -> bool:
        """Whether that is the token."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token)

    def cookie(self) -> str:
        """A new session."""
        content = f"{int(time.time()) + SESSION_SECONDS}.{secrets.token_urlsafe(16)}"
        return f"{content}.{self._signed('session', content)}"

    def session(self, cookie: str) -> Session | None:
        """The session of a cookie; None where it is not one of ours, or over."""
        content, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(signature.encode(errors="replace"), self._signed("session", content).encode()):
            return None
        if int(content.partition(".")[0]) < time.time():
            return None
        return Session(self._signed("csrf", content))

    def count(self, limit: RateLimitItem, client: str) -> int | None:
        """Count one; seconds to wait where that is too many, else None."""
        return None if self._limiter.hit(limit, client) else self._wait(limit, client)

    def _wait(self, limit: RateLimitItem, client: str) -> int:
        reset = self._limiter.get_window_stats(limit, client).reset_time
        return max(1, round(reset - time.time()))

    def _signed(self, what: str, content: str) -> str:
        return hmac.new(self._key, f"{what} {content}".encode(errors="replace"), sha256).hexdigest()
