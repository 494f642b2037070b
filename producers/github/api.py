"""Asks GitHub's REST API: who asks, what its answers mean, and how its lists go on from page to page."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jwt
import msgspec
from gidgethub.apps import get_jwt
from gidgethub.sansio import RateLimit, create_headers, decipher_response

from pipeline import ConfigError, Fetched, Fetcher, PermanentError, TemporaryError, shorten
from producers.github.options import GithubConfig

_NAME: Final = "siftbell"
_VERSION: Final = {"x-github-api-version": "2022-11-28"}
_SECONDARY: Final = 60.0
"""Seconds to wait at least where GitHub limits and does not say how long."""
_MOST_PAGES: Final = 1000


class LimitedError(TemporaryError):
    """GitHub wants to be asked nothing for so long."""


class UnknownError(PermanentError):
    """GitHub does not know who asks."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; `items` is None where it is what it was at the time of the tag that was sent along."""

    items: list[dict[str, Any]] | None
    tag: str
    """What to send along to be told whether it has changed."""
    more: str | None
    """The URL of the next page."""
    pause: float
    """Seconds for which not to ask for it again."""


class Api:
    """GitHub, or a GitHub Enterprise Server, as one who may ask sees it. Threads may share it; an app's tokens are kept."""

    def __init__(self, config: GithubConfig) -> None:
        self._config = config
        self._base = config.base_url.rstrip("/")
        self._fetcher = Fetcher(config, tls=_trust(config), timeout=config.timeout.total_seconds(), judged=judge)
        self._tokens: dict[str, tuple[str, float]] = {}

    def close(self) -> None:
        """Close the connections."""
        self._fetcher.close()

    def pages(self, path: str, query: Mapping[str, str], *, repository: str = "", tag: str = "") -> Iterator[Page]:
        """Give a list page by page, as GitHub's `Link` headers lead; `tag` is one of an earlier first page, or empty.

        Raises `LimitedError` where GitHub limits, and what `Fetcher.get` raises.
        """
        url = f"{self._base}{path}"
        asked: Mapping[str, str] | None = {"per_page": "100", **query}
        for _ in range(_MOST_PAGES):
            answer = self._get(url, repository, asked, tag)
            page = _page(answer)
            yield page
            if page.more is None:
                return
            if not page.more.startswith(f"{self._base.partition('://')[0]}://{_host(self._base)}/"):
                raise PermanentError(f"GET {answer.where}: the next page is on another server")
            url, asked, tag = page.more, None, ""
        raise PermanentError(f"{path} has more than {_MOST_PAGES} pages")

    def login(self) -> str:
        """Say who asks: a person's login, or an app's name."""
        if self._config.app is not None:
            return str(_object(self._fetcher.get(f"{self._base}/app", headers=self._as_app())).get("slug"))
        return str(_object(self._get(f"{self._base}/user", "")).get("login"))

    def _get(self, url: str, repository: str, query: Mapping[str, str] | None = None, tag: str = "") -> Fetched:
        try:
            return self._fetcher.get(url, query, headers={**self._headers(repository), **_condition(tag)})
        except UnknownError:
            self._tokens.clear()  # one that was revoked is not tried again
            raise

    def _headers(self, repository: str) -> dict[str, str]:
        if self._config.app is not None:
            token: str | None = self._installed(repository)
        else:
            token = self._config.token.get_secret_value() if self._config.token else None
        return {**create_headers(_NAME, oauth_token=token), **_VERSION}

    def _as_app(self) -> dict[str, str]:
        """Give what proves for some minutes that an app asks: a JWT, signed with its key."""
        assert self._config.app is not None
        key = self._config.app.private_key.get_secret_value().replace("\\n", "\n")
        try:
            proof = get_jwt(app_id=self._config.app.id, private_key=key, expiration=9 * 60)
        except (ValueError, TypeError, jwt.PyJWTError):
            raise PermanentError("app.private_key cannot be read: the PEM file that GitHub gave is expected") from None
        return {**create_headers(_NAME, jwt=proof), **_VERSION}

    def _installed(self, repository: str) -> str:
        """Give the token of an app's installation; one lasts an hour, and is taken for fifty minutes."""
        owner = repository.partition("/")[0].lower()
        token, until = self._tokens.get(owner, ("", 0.0))
        if time.monotonic() < until:
            return token
        assert self._config.app is not None
        number = self._config.app.installation
        if number is None:
            found = self._fetcher.get(f"{self._base}/repos/{repository}/installation", headers=self._as_app())
            number = _object(found).get("id")
        made = _object(self._fetcher.post(f"{self._base}/app/installations/{number}/access_tokens", headers=self._as_app()))
        if not isinstance(made.get("token"), str):
            raise PermanentError("GitHub gave no token for the app's installation")
        self._tokens[owner] = made["token"], time.monotonic() + 50 * 60
        return self._tokens[owner][0]


def _trust(config: GithubConfig) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if config.ca_file is not None:
        try:
            context.load_verify_locations(config.ca_file)
        except OSError as error:
            raise ConfigError(f"ca_file holds no certificates that can be read ({type(error).__name__})") from None
    return context


def judge(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Return for 2xx; raise `LimitedError`, `TemporaryError` or `PermanentError` for what GitHub means by any other answer."""
    if 200 <= status < 300:
        return
    said = _said(body)
    if status in (403, 429) and (wait := _wait(headers, said)) is not None:
        raise LimitedError(f"answered {status}: GitHub limits how much is asked{said}", retry_after=wait)
    if status in (408, 425, 429) or status >= 500:
        raise TemporaryError(f"answered {status}{said}", retry_after=_number(headers.get("retry-after")))
    if status == 401:
        raise UnknownError(f"answered 401: the token or the app's key is not valid{said}")
    if status == 404:
        raise PermanentError("answered 404: it is not there, or whoever asks may not read it")
    if 300 <= status < 400:
        raise PermanentError(f"answered {status}: it was renamed or moved; write its new name into the configuration")
    raise PermanentError(f"answered {status}{said}")


def _wait(headers: Mapping[str, str], said: str) -> float | None:
    """Say for how long GitHub wants no questions; None where it refuses for another reason."""
    if (given := _number(headers.get("retry-after"))) is not None:
        return given
    try:
        limit = RateLimit.from_http(headers)
    except ValueError:
        limit = None
    if limit is not None and limit.remaining <= 0:
        return max(1.0, limit.reset_datetime.timestamp() - time.time())
    return _SECONDARY if "rate limit" in said.lower() else None


def _object(answer: Fetched) -> dict[str, Any]:
    found = answer.json()
    return found if isinstance(found, dict) else {}


def _page(answer: Fetched) -> Page:
    pause = _number(answer.headers.get("x-poll-interval")) or 0.0
    tag = answer.headers.get("etag") or answer.headers.get("last-modified", "")
    if answer.status == 304:
        return Page(None, tag, None, pause)
    try:
        found, _, more = decipher_response(200, answer.headers, answer.body)
    except ValueError:
        raise TemporaryError(f"GET {answer.where}: the answer is not JSON") from None
    if not isinstance(found, list):
        raise PermanentError(f"GET {answer.where}: a list is expected; is base_url GitHub's API?")
    return Page([item for item in found if isinstance(item, dict)], tag, more, pause)


def _condition(tag: str) -> dict[str, str]:
    if not tag:
        return {}
    return {"if-none-match": tag} if tag.startswith(('"', "W/")) else {"if-modified-since": tag}


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _said(body: bytes) -> str:
    """Give GitHub's own words, in brackets."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    words = found.get("message") if isinstance(found, dict) else None
    return f" ({shorten(' '.join(words.split()), 150)})" if isinstance(words, str) else ""


def _number(text: str | None) -> float | None:
    """Read seconds to wait, which are believed up to a day."""
    try:
        return min(max(0.0, float(text)), 86400.0) if text else None
    except ValueError:
        return None
