"""The contract suites: good plugins pass, and each way of being bad is caught by the test that is there for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

HEAD = '''
"""A manual."""
import json
from datetime import timedelta
from pydantic import BaseModel, Field, SecretStr
from pipeline import *
from pipeline.testing import *

class NoteConfig(Config):
    token: SecretStr = Field(default=SecretStr("sesame"), description="A token.")
'''
GOOD_POLL = '''
class Poll(PollingProducer[NoteConfig]):
    """Counts."""
    def poll(self, cursor):
        for number in range(int(cursor or 0), 4):
            yield Message(source="t", title=str(number)), str(number + 1)
'''
GOOD_REMEMBER = '''
class Remember(RememberingFilter[NoteConfig]):
    """Drops what came before, and numbers the rest."""
    def filter(self, message, memory):
        if memory.first(message.key, timedelta(minutes=5)):
            yield message.replace(text=str(memory.count("all", timedelta(minutes=5))))
        else:
            memory.forget("all")
'''
GOOD_WINDOW = '''
class Wait(WindowFilter[NoteConfig]):
    """Lets messages with a key wait."""
    def window(self, message, now):
        return Window(message.key, now + timedelta(minutes=1)) if message.key else None
    def release(self, key, messages):
        if not messages[-1].title:
            raise PermanentError("no title")
        yield messages[-1].replace(text=f"{len(messages)} messages")
'''
GOOD_RECEIVE = '''
class Receive(WebhookProducer[NoteConfig]):
    """Takes objects."""
    def receive(self, request):
        body = request.json()
        if not isinstance(body, dict):
            raise RequestError("an object is expected", status=422)
        return [Message(source="t", title=str(body.get("title")), data=body)]
'''


def results(pytester, code):
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:cov\nfilterwarnings = error")
    pytester.makepyfile(HEAD + code)
    run = pytester.inline_run("-q")
    passed, _, failed = run.listoutcomes()
    return {report.nodeid.split("::")[-1].split("[")[0] for report in failed}, len(passed)


@pytest.mark.parametrize(
    ("code", "contract"),
    [
        (GOOD_POLL, "class TestIt(PollingProducerContract):\n    plugin = Poll"),
        (GOOD_REMEMBER, "class TestIt(RememberingFilterContract):\n    plugin = Remember"),
        (GOOD_WINDOW, "class TestIt(WindowFilterContract):\n    plugin = Wait"),
        (GOOD_RECEIVE, 'class TestIt(WebhookProducerContract):\n    plugin = Receive\n    accepted = [b\'{"title": "a"}\']'),
    ],
)
def test_good_plugins_pass(pytester, code, contract):
    failed, passed = results(pytester, code + contract)
    assert failed == set()
    assert passed >= 8


FILTER = "class TestIt(FilterContract):\n    plugin = Bad\n"
HTTP = 'class TestIt(HttpConsumerContract):\n    plugin = Bad\n    options = {"url": "{url}"}\n'
POSTING = '''
class UrlConfig(NoteConfig):
    url: str = Field(description="Where to.")
class Bad(HttpConsumer[UrlConfig]):
    """Posts."""
    def request(self, message):
        token = self.config.token.get_secret_value()
        return HttpRequest(self.config.url, message.title.encode(), headers={"authorization": token})
'''
BAD = {
    "no manual": (
        "class BadConfig(Config):\n    x: int = 1\nclass Bad(Filter[BadConfig]):\n    def filter(self, m): yield m\n" + FILTER,
        {"test_the_manual_is_complete"},
    ),
    "nested options without words": (
        'class In(Config):\n    x: int = 1\nclass BadConfig(Config):\n    i: list[In] = Field(default=[], description="I.")\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_the_manual_is_complete"},
    ),
    "lax options": (
        'class BadConfig(Config):\n    model_config = {"extra": "ignore"}\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_unknown_options_are_refused"},
    ),
    "a bare secret": (
        'class BadConfig(Config):\n    api_key: str | None = Field(default=None, description="A key.")\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_what_is_called_like_a_secret_is_one"},
    ),
    "a secret in repr": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n'
        "    def __repr__(self): return self.config.token.get_secret_value()\n" + FILTER,
        {"test_secrets_do_not_show"},
    ),
    "a message changed in place": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m):\n        m.labels["x"] = "y"\n        yield m\n'
        + FILTER,
        {"test_it_leaves_the_message_alone"},
    ),
    "a filter that remembers": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    seen = 0\n    def filter(self, m):\n'
        "        self.seen += 1\n        yield m.replace(text=str(self.seen))\n" + FILTER,
        {"test_it_forgets_earlier_messages"},
    ),
    "a filter that gives texts": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m): raise ConfigError("no")\n' + FILTER,
        {"test_it_leaves_the_message_alone", "test_it_gives_messages_or_says_why_not", "test_it_forgets_earlier_messages"},
    ),
    "a producer that trips": (
        (
            'class Bad(WebhookProducer[NoteConfig]):\n    """Bad."""\n    def receive(self, r):\n'
            '        return [Message(source="t", title=json.loads(r.body)["title"])]\n'
            "class TestIt(WebhookProducerContract):\n    plugin = Bad\n"
        ),
        {
            "test_rubbish_is_refused",
            "test_an_empty_list_is_refused_or_gives_nothing",
            "test_whatever_comes_is_a_message_or_refused",
            "test_hypothesis_finds_nothing_else",
        },
    ),
    "a cursor that skips": (
        GOOD_POLL.replace("str(number + 1)", "str(number + 2)") + "class TestIt(PollingProducerContract):\n    plugin = Poll\n",
        {"test_it_goes_on_from_every_cursor"},
    ),
    "a cursor that stands still": (
        GOOD_POLL.replace("str(number + 1)", '"4"') + "class TestIt(PollingProducerContract):\n    plugin = Poll\n",
        {"test_it_goes_on_from_every_cursor", "test_cursors_differ"},
    ),
    "a memory of its own": (
        (
            'class Bad(RememberingFilter[NoteConfig]):\n    """Bad."""\n    def __init__(self, c):\n'
            "        super().__init__(c)\n        self.seen = set()\n"
            "    def filter(self, m, memory):\n        if m.key not in self.seen:\n"
            "            yield m\n        self.seen.add(m.key)\nclass TestIt(RememberingFilterContract):\n    plugin = Bad\n"
        ),
        {"test_two_workers_decide_as_one", "test_a_lost_memory_does_no_harm"},
    ),
    "a window without a zone": (
        GOOD_WINDOW.replace("now + timedelta(minutes=1)", "now.replace(tzinfo=None)")
        + "class TestIt(WindowFilterContract):\n    plugin = Wait\n",
        {"test_a_window_has_a_key_and_a_due_time"},
    ),
    "a release that remembers": (
        GOOD_WINDOW.replace('f"{len(messages)} messages"', "str(id(self))")
        + "class TestIt(WindowFilterContract):\n    plugin = Wait\n",
        {"test_what_leaves_depends_on_the_messages_alone"},
    ),
    "a consumer that swallows errors": (
        POSTING + "    def check(self, status, headers, body): pass\n" + HTTP,
        {
            "test_what_may_pass_is_tried_again",
            "test_what_will_not_pass_is_given_up",
            "test_retry_after_is_kept",
            "test_retry_after_may_be_a_date",
            "test_errors_and_logs_hold_no_secret",
            "test_a_long_answer_is_cut",
        },
    ),
    "a consumer that tells secrets": (
        POSTING
        + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        + "        except PermanentError as e:\n"
        + "            raise PermanentError(f'{e} {self.config.token.get_secret_value()}') from None\n"
        + "    def preview(self, m): return self.config.token.get_secret_value()\n"
        + HTTP,
        {"test_errors_and_logs_hold_no_secret", "test_a_preview_shows_no_secret"},
    ),
    "a request that differs each time": (
        POSTING.replace("message.title.encode()", "str(id(self)).encode()") + HTTP,
        {"test_the_request_depends_on_the_message_alone"},
    ),
}


@pytest.mark.parametrize(("code", "caught_by"), BAD.values(), ids=BAD.keys())
def test_bad_plugins_are_caught(pytester, code, caught_by):
    failed, _ = results(pytester, code)
    assert failed == caught_by


def test_without_pytest_it_says_what_to_do():
    code = "from importlib import util\nutil.find_spec = lambda name: None\nimport pipeline.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.endswith("pip install pytest\n")


def test_the_api_itself_does_not_import_pytest():
    code = "import sys, pipeline; print(*(name in sys.modules for name in ('pytest', 'aiohttp', 'cel', 'jinja2')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False False False\n"
