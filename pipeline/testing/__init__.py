"""The contract of each kind of plugin as a suite of tests, for our plugins and for yours.

Subclass the suite of your plugin's kind in a test file, and run pytest:

    from pipeline.testing import HttpConsumerContract
    from siftbell_ntfy import Ntfy


    class TestNtfy(HttpConsumerContract):
        plugin = Ntfy
        options = {"url": "{url}", "topic": "deploys", "token": "a-secret"}

In `options`, `{url}` is replaced by the address of the suite's own server on loopback, `{tmp}` by a directory of the test's own.
With other kinds `{url}` is an address where nothing answers. Secrets in `options` have six characters or more.
"""

from importlib.util import find_spec

if find_spec("pytest") is None:
    raise ImportError("pipeline.testing needs pytest, which is no dependency of siftbell itself: pip install pytest")

import pytest

for _module in ("contract", "producers", "posting", "filters", "consumers", "http", "delivering", "probing", "secrecy"):
    pytest.register_assert_rewrite(f"pipeline.testing.{_module}")

from pipeline.testing.consumers import BatchConsumerContract, ConsumerContract  # noqa: E402 - after the rewriting is set up
from pipeline.testing.contract import PluginContract, sample_messages  # noqa: E402 - after the rewriting is set up
from pipeline.testing.filters import (  # noqa: E402 - after the rewriting is set up
    FilterContract,
    Recollection,
    RememberingFilterContract,
    WindowFilterContract,
)
from pipeline.testing.http import HttpConsumerContract  # noqa: E402 - after the rewriting is set up
from pipeline.testing.posting import WebhookProducerContract  # noqa: E402 - after the rewriting is set up
from pipeline.testing.producers import (  # noqa: E402 - after the rewriting is set up
    ListeningProducerContract,
    PollingProducerContract,
)
from pipeline.testing.server import Answer, LoopbackServer, Received  # noqa: E402 - after the rewriting is set up

__all__ = [
    "Answer",
    "BatchConsumerContract",
    "ConsumerContract",
    "FilterContract",
    "HttpConsumerContract",
    "ListeningProducerContract",
    "LoopbackServer",
    "PluginContract",
    "PollingProducerContract",
    "Received",
    "Recollection",
    "RememberingFilterContract",
    "WebhookProducerContract",
    "WindowFilterContract",
    "sample_messages",
]
