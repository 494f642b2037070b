"""Who may do what: finds the API key in a request's headers and checks it."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from pipeline.errors import PipelineError, TemporaryError
from pipeline.keys import KeyCheck, digest_of
from pipeline.store.rows import ApiKey
from pipeline.web.answers import Refusal, unavailable

PATIENCE: Final = 2.0
"""Seconds to wait for the store's word on a key."""
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="siftbell"'}


class Access:
    """Checks keys; the store is asked in threads of its own, so that a hanging one holds up nothing else."""

    def __init__(self, keys: KeyCheck) -> None:
        self._keys = keys
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="keys")

    async def require(self, headers: Mapping[str, str], scope: str) -> ApiKey:
        """Give the request's key. Raises `Refusal`: 401 without a known key, 403 where it may not, 503 where nobody can tell."""
        text = key_in(headers)
        if text is None:
            raise Refusal(401, "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY", headers=_CHALLENGE)
        digest = digest_of(text)
        key = await self._find(digest) if digest else None
        if key is None:
            raise Refusal(401, "this API key is not known", headers=_CHALLENGE)
        if key.expires is not None and key.expires <= datetime.now(UTC):
            raise Refusal(403, f"the API key '{key.name}' has expired")
        if scope not in key.scopes:
            raise Refusal(403, f"the API key '{key.name}' lacks the scope '{scope}'")
        return key

    async def _find(self, digest: str) -> ApiKey | None:
        found = self._keys.remembered(digest)
        if found is not None:
            return found.key
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, self._keys.ask, digest), PATIENCE)
        except (PipelineError, TimeoutError):
            self._keys.away()
            found = self._keys.last_known(digest)
            if found is not None:
                return found.key
            raise unavailable(TemporaryError("the API key cannot be checked now")) from None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def key_in(headers: Mapping[str, str]) -> str | None:
    """Give the key of `X-API-Key`, `Authorization: Bearer` or, as the password, `Authorization: Basic`; None without one."""
    if plain := headers.get("x-api-key"):
        return plain.strip()
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None
    return None
