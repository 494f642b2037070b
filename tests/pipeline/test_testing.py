"""The contract suites: good plugins pass, and each way of being bad is caught by the test that is there for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline
import pipeline.testing

pytest_plugins = ["pytester"]

for name in pipeline.__all__:  # else each run inside imports them anew, and `pipeline` keeps the classes of the run before
    getattr(pipeline, name)

HEAD = '''
"""A manual."""
import itertools, json, logging, sys, time, warnings
from datetime import datetime, timedelta
from pathlib import Path
from urllib.request import urlopen
import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr
from pipeline import *
from pipeline.testing import *

class NoteConfig(Config):
    token: SecretStr = Field(default=SecretStr("sesame"), description="A token.")

class DirectoryConfig(NoteConfig):
    directory: Path = Field(description="Where files are.")
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
    def window(self, message, now, memory):
        return Window(message.key, now + timedelta(minutes=1)) if message.key else None
    def release(self, opened):
        key, messages = opened.key, opened.messages
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
GOOD_RECEIVE_MANY = '''
class Receive(WebhookProducer[NoteConfig]):
    """Takes objects in a list in an object."""
    def receive(self, request):
        body = request.json()
        notes = body.get("notes") if isinstance(body, dict) else None
        if not isinstance(notes, list):
            raise RequestError("a list of notes is expected", status=422)
        messages, problems = [], []
        for index, note in enumerate(notes):
            if isinstance(note, dict) and isinstance(note.get("title"), str):
                messages.append(Message(source="t", title=note["title"], data=body))
            else:
                problems.append(Problem(f"notes[{index}]", "a title is expected"))
        if problems:
            raise RequestError("some cannot be read", status=422, problems=problems)
        return messages
'''
RECEIVE_MANY = """
class TestIt(WebhookProducerContract):
    plugin = Receive
    accepted = [b'{"notes": [{"title": "a", "tags": []}, {"title": "b"}], "by": {"name": "c"}}']
"""


GOOD_LISTEN = '''
class Listen(ListeningProducer[DirectoryConfig]):
    """Takes files."""
    def listen(self, publish, stopping):
        while not stopping():
            for file in sorted(self.config.directory.iterdir()):
                publish([Message(source="t", title=file.read_text())])
                file.unlink()
'''
LISTEN = """
class TestIt(ListeningProducerContract):
    plugin = Listen
    options = {"directory": "{tmp}/spool"}
    patience = 0.5
    @pytest.fixture(autouse=True)
    def spool(self, tmp_path):
        (tmp_path / "spool").mkdir()
        for name in "ab":
            (tmp_path / "spool" / name).write_text(name)
"""
GOOD_BATCH = '''
class Batch(BatchConsumer[DirectoryConfig]):
    """Writes files."""
    def consume_many(self, messages):
        try:
            for message in messages:
                (self.config.directory / message.id).write_text(message.title)
        except OSError as error:
            raise TemporaryError(str(error)) from error
        return {messages[0].id: PermanentError("not this one")}
'''
BATCH = """
class TestIt(BatchConsumerContract):
    plugin = Batch
    options = {"directory": "{tmp}"}
    away_options = {"directory": "{tmp}/missing", "token": "sesame-open"}
"""
GOOD_ASK = '''
class AskConfig(NoteConfig):
    url: str = Field(description="Where from.")
class Ask(PollingProducer[AskConfig]):
    """Asks a server."""
    def poll(self, cursor):
        try:
            urlopen(self.config.url, timeout=5)
        except OSError as error:
            raise TemporaryError("away") from error
        for number in range(int(cursor or 0), 4):
            yield Message(source="t", title=str(number)), str(number + 1)
'''
ASK = """
class TestIt(PollingProducerContract):
    plugin = Ask
    options = {"url": "data:,"}
    away_options = {"url": "{url}"}
"""
GOOD_POST = '''
class PostConfig(NoteConfig):
    url: str = Field(description="Where to.")
    cookies: list[SecretStr] = Field(description="More secrets.")
    password: SecretBytes | None = Field(default=None, description="Another.")
class Post(HttpConsumer[PostConfig]):
    """Posts what has a title."""
    def request(self, message):
        if not message.title:
            raise PermanentError("a title is expected")
        headers = {"x-title": message.title, "cookie": self.config.cookies[0].get_secret_value()}
        return HttpRequest(self.config.url, message.text.encode(), "PUT", headers)
    def check(self, status, headers, body):
        super().check(status, headers, body)
        if body != b"ok":
            raise PermanentError("it is not ok")
'''
POST = """
class TestIt(HttpConsumerContract):
    plugin = Post
    options = {"url": "{url}/a b/ü?c=d", "cookies": ["chocolate"], "password": b"vanilla-ice"}
    good_body = b"ok"
"""
GOOD_TELL = '''
class TellConfig(DirectoryConfig):
    model_config = {"extra": "forbid"}
class Tell(Consumer[TellConfig]):
    """Writes a file."""
    def consume(self, message):
        try:
            (self.config.directory / message.id).write_text(message.title)
        except OSError:
            raise TemporaryError("away") from None
    def preview(self, message):
        if not message.title:
            raise PermanentError("a title is expected")
        return message.title
'''
TELL = """
class TestIt(ConsumerContract):
    plugin = Tell
    options = {"directory": "{tmp}"}
    away_options = {"directory": "{tmp}/missing"}
"""
RECEIVE = 'class TestIt(WebhookProducerContract):\n    plugin = Receive\n    accepted = [b\'{"title": "a"}\']\n'


def results(pytester, code):
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider -p no:cov\nfilterwarnings = error")
    pytester.makepyfile(HEAD + code)
    run = pytester.inline_run("-q", "--tb=no", "--show-capture=no")
    passed, _, failed = run.listoutcomes()
    return {report.nodeid.split("::")[-1].split("[")[0] for report in failed}, len(passed)


@pytest.mark.parametrize(
    ("code", "contract"),
    [
        (GOOD_POLL, "class TestIt(PollingProducerContract):\n    plugin = Poll"),
        (GOOD_REMEMBER, "class TestIt(RememberingFilterContract):\n    plugin = Remember"),
        (GOOD_WINDOW, "class TestIt(WindowFilterContract):\n    plugin = Wait"),
        (GOOD_RECEIVE, RECEIVE),
        (GOOD_RECEIVE_MANY, RECEIVE_MANY),
        (GOOD_RECEIVE_MANY.replace("problems=problems)", "problems=problems, accepted=messages)"), RECEIVE_MANY),
        (GOOD_LISTEN, LISTEN),
        (GOOD_BATCH, BATCH),
        (GOOD_ASK, ASK),
        (GOOD_POST, POST),
        (GOOD_TELL, TELL),
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
BY_CHANCE = {"test_hypothesis_finds_nothing_else"}
"""What it finds is another thing with each version of it; where it must find something, that is said."""
SPOILED = "test_what_was_spoiled_is_a_message_or_refused"
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
            'class TestIt(WebhookProducerContract):\n    plugin = Bad\n    accepted = [b\'{"title": "a"}\']\n'
        ),
        {
            "test_rubbish_is_refused",
            "test_it_forgets_earlier_requests",
            "test_an_empty_list_is_refused_or_gives_nothing",
            "test_whatever_comes_is_a_message_or_refused",
            SPOILED,
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
            "test_retry_after_is_kept_with_every_answer",
            "test_retry_after_may_be_a_date",
            "test_errors_hold_no_secret",
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
        {"test_errors_hold_no_secret", "test_a_preview_shows_no_secret"},
    ),
    "YAML that is none": (
        'class Bad(Filter[NoteConfig]):\n    """Bad.\n\n    ```yaml\n    filters: [\n    ```\n    """\n'
        "    def filter(self, m): yield m\n" + FILTER,
        {"test_the_manual_has_yaml_that_can_be_read"},
    ),
    "imports from behind the API": (
        "import pipeline.keys\nfrom pipeline.message import new_id\nfrom pipeline import engine\n"
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_it_imports_the_api_alone"},
    ),
    "lax options inside": (
        'class In(BaseModel):\n    x: int = Field(default=1, description="X.")\n'
        'class BadConfig(Config):\n    i: list[In] = Field(default=[], description="I.")\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_unknown_options_are_refused", "test_options_cannot_be_changed"},
    ),
    "options that can be changed": (
        'class BadConfig(Config):\n    model_config = {"frozen": False}\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_options_cannot_be_changed"},
    ),
    "a bare secret inside": (
        'class In(Config):\n    signing_key: bytes = Field(default=b"", description="K.")\n'
        'class BadConfig(Config):\n    i: In | None = Field(default=None, description="I.")\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n' + FILTER,
        {"test_what_is_called_like_a_secret_is_one"},
    ),
    "a test whose secret is too short to be found": (
        (
            'class Good(Filter[NoteConfig]):\n    """Good."""\n    def filter(self, m): yield m\n'
            'class TestIt(FilterContract):\n    plugin = Good\n    options = {"token": "a"}\n'
        ),
        {"test_secrets_do_not_show"},
    ),
    "a plugin that closes once only": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n'
        "    def open(self): self.file = open('/dev/null')\n"
        "    def close(self):\n        self.file.close()\n        del self.file\n" + FILTER,
        {"test_it_can_be_closed_unused"},
    ),
    "connections that close once only": (
        (
            'class Bad(Consumer[NoteConfig]):\n    """Bad."""\n    closed = False\n    def consume(self, m): pass\n'
            "    async def aclose(self):\n        assert not self.closed\n        self.closed = True\n"
            "class TestIt(ConsumerContract):\n    plugin = Bad\n"
        ),
        {"test_it_can_be_closed_unused"},
    ),
    **{
        f"a secret {how}": (
            'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m):\n'
            f"        {code}\n        return [m]\n" + FILTER,
            {"test_it_leaves_the_message_alone", "test_it_gives_messages_or_says_why_not", "test_it_forgets_earlier_messages"},
        )
        for how, code in {
            "logged": 'logging.getLogger("acme").debug("with %s", self.config.token.get_secret_value())',
            "printed": "print(self.config.token.get_secret_value())",
            "on stderr": "print(self.config.token.get_secret_value(), file=sys.stderr)",
            "in a warning": 'warnings.simplefilter("always"); warnings.warn(self.config.token.get_secret_value())',
        }.items()
    },
    "a secret in a filter's error": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n'
        "    def filter(self, m): raise PermanentError(self.config.token.get_secret_value())\n" + FILTER,
        {"test_it_gives_messages_or_says_why_not"},
    ),
    "a filter whose message cannot be kept": (
        'class Bad(Filter[NoteConfig]):\n    """Bad."""\n    def filter(self, m): yield m.replace(data={1, 2})\n' + FILTER,
        {"test_it_leaves_the_message_alone", "test_it_gives_messages_or_says_why_not", "test_it_forgets_earlier_messages"},
    ),
    "no body that must be taken": (
        GOOD_RECEIVE + "class TestIt(WebhookProducerContract):\n    plugin = Receive\n",
        {"test_what_it_must_take_gives_messages"},
    ),
    "a body that must be taken is not": (
        GOOD_RECEIVE + RECEIVE.replace('{"title": "a"}', "[1]"),
        {"test_what_it_must_take_gives_messages"},
    ),
    "a producer that counts": (
        GOOD_RECEIVE.replace("        body =", "        self.count = getattr(self, 'count', 0) + 1\n        body =").replace(
            'body.get("title")', "self.count"
        )
        + RECEIVE,
        {"test_it_forgets_earlier_requests"},
    ),
    "one id for two": (
        GOOD_RECEIVE.replace("return [", "message = (").replace("data=body)]", "data=body))\n        return [message, message]")
        + RECEIVE,
        {
            "test_what_it_must_take_gives_messages",
            "test_whatever_comes_is_a_message_or_refused",
            SPOILED,
            "test_hypothesis_finds_nothing_else",
        },
    ),
    "a time without a zone": (
        GOOD_RECEIVE.replace("data=body", "data=body, time=datetime(2026, 11, 21)") + RECEIVE,
        {
            "test_what_it_must_take_gives_messages",
            "test_whatever_comes_is_a_message_or_refused",
            SPOILED,
            "test_hypothesis_finds_nothing_else",
        },
    ),
    "a producer that trips over one part": (
        GOOD_RECEIVE_MANY.replace('title=note["title"]', 'title=note["title"] + "".join(note.get("tags", []))') + RECEIVE_MANY,
        {SPOILED, "test_a_good_message_beside_a_bad_one_is_not_lost"},
    ),
    "a good message that is lost": (
        GOOD_RECEIVE_MANY.replace("            else:\n", "            elif messages:\n                break\n            else:\n")
        + RECEIVE_MANY,
        {"test_a_good_message_beside_a_bad_one_is_not_lost"},
    ),
    "good messages that are lost with a refusal that accepts some": (
        GOOD_RECEIVE_MANY.replace("problems=problems)", "problems=problems, accepted=messages[:1])") + RECEIVE_MANY,
        {"test_a_good_message_beside_a_bad_one_is_not_lost"},
    ),
    "a refusal that is the sender's to repeat": (
        GOOD_RECEIVE_MANY.replace('read", status=422', 'read", status=500') + RECEIVE_MANY,
        {SPOILED, "test_a_good_message_beside_a_bad_one_is_not_lost"},
    ),
    "a refusal that tells the token": (
        GOOD_RECEIVE_MANY.replace('"a title is expected"', "self.config.token.get_secret_value()") + RECEIVE_MANY,
        {SPOILED, "test_a_good_message_beside_a_bad_one_is_not_lost"},
    ),
    "a header that must be there": (
        GOOD_RECEIVE.replace("body = request.json()", 'body = request.headers["content-type"] and request.json()') + RECEIVE,
        {SPOILED},
    ),
    "a cursor of its own": (
        GOOD_POLL.replace("        for", "        cursor, self.at = getattr(self, 'at', cursor), '4'\n        for")
        + "class TestIt(PollingProducerContract):\n    plugin = Poll\n",
        {"test_it_keeps_no_cursor"},
    ),
    "an absent source that is a bug": (
        GOOD_ASK.replace("except OSError", "except KeyError") + ASK,
        {"test_an_absent_source_is_asked_again"},
    ),
    "an absent source that tells the token": (
        GOOD_ASK.replace('TemporaryError("away")', "TemporaryError(self.config.token.get_secret_value())") + ASK,
        {"test_an_absent_source_is_asked_again"},
    ),
    "acknowledged before it was published": (
        GOOD_LISTEN.replace('publish([Message(source="t", title=file.read_text())])', "text = file.read_text()").replace(
            "file.unlink()", "file.unlink()\n                publish([Message(source='t', title=text)])"
        )
        + LISTEN,
        {"test_what_was_not_published_comes_again"},
    ),
    "listens without end": (
        GOOD_LISTEN.replace(
            "        while not stopping():",
            "        end = time.monotonic() + 3\n        while time.monotonic() < end:\n            time.sleep(0.01)",
        )
        + LISTEN,
        {
            "test_it_publishes_what_comes_and_stops",
            "test_it_stops_at_once_when_it_is_to",
            "test_what_was_not_published_comes_again",
        },
    ),
    "publishes nothing": (
        GOOD_LISTEN.replace("publish([", "print([") + LISTEN,
        {"test_it_publishes_what_comes_and_stops", "test_what_was_not_published_comes_again"},
    ),
    "listens with a bug": (
        GOOD_LISTEN.replace("while not", "raise KeyError if not").replace(
            "():\n            for", "() else KeyError\n        if 1:\n            for"
        )
        + LISTEN,
        {
            "test_it_publishes_what_comes_and_stops",
            "test_it_stops_at_once_when_it_is_to",
            "test_what_was_not_published_comes_again",
        },
    ),
    "failures of strangers": (
        GOOD_BATCH.replace("messages[0].id:", "'somebody':") + BATCH,
        {"test_it_tells_which_messages_failed"},
    ),
    "failures that are no errors": (
        GOOD_BATCH.replace('PermanentError("not this one")', '"no"') + BATCH,
        {"test_it_tells_which_messages_failed"},
    ),
    "nothing said of failures": (
        GOOD_BATCH.replace('return {messages[0].id: PermanentError("not this one")}', "return None") + BATCH,
        {"test_it_tells_which_messages_failed"},
    ),
    "a batch that fails as one, and says so for each": (
        GOOD_BATCH.replace("raise TemporaryError(str(error)) from error", "return {messages[0].id: PermanentError('away')}")
        + BATCH,
        {"test_an_absent_other_side_is_tried_again"},
    ),
    "a batch that changes messages": (
        GOOD_BATCH.replace("        return", "        messages[0].labels['x'] = 'y'\n        return") + BATCH,
        {"test_it_tells_which_messages_failed"},
    ),
    "an absent other side that is a bug": (
        GOOD_BATCH.replace("except OSError", "except KeyError") + BATCH,
        {"test_an_absent_other_side_is_tried_again"},
    ),
    "an absent other side that tells the token": (
        GOOD_BATCH.replace("TemporaryError(str(error))", "TemporaryError(self.config.token.get_secret_value())") + BATCH,
        {"test_an_absent_other_side_is_tried_again"},
    ),
    "a request that counts": (
        POSTING.replace("class Bad", "numbers = itertools.count()\nclass Bad")
        .replace("message.title.encode()", "message.title.encode(), headers={'x-number': str(next(numbers))}")
        .replace(', headers={"authorization": token})', ")")
        + HTTP,
        {
            "test_the_request_depends_on_the_message_alone",
            "test_it_delivers",
            "test_every_message_arrives_or_is_given_up",
        },
    ),
    "a connection for each message": (
        POSTING
        + "    async def consume(self, m):\n        await super().consume(m)\n        await self.aclose()\n"
        + HTTP.replace("plugin = Bad", "plugin = Bad\n    test_it_delivers_several_at_once = None"),
        {"test_it_keeps_its_connection"},
    ),
    "something else is sent than said": (
        POSTING.replace("def request", "def _old").replace("class Bad(", "class Said(")
        + "    said = True\n    def request(self, m):\n        r = self._old(m)\n"
        "        return HttpRequest(r.url, r.body if self.said else b'other', headers=r.headers)\n"
        'class Bad(Said):\n    """Posts."""\n    config_type = UrlConfig\n    async def consume(self, m):\n'
        "        self.said = False\n        try:\n            await super().consume(m)\n"
        "        finally:\n            self.said = True\n" + HTTP,
        {"test_it_delivers", "test_every_message_arrives_or_is_given_up"},
    ),
    "redirects are followed": (
        POSTING + "    def check(self, status, headers, body):\n"
        "        if not 300 <= status < 400: super().check(status, headers, body)\n" + HTTP,
        {"test_what_will_not_pass_is_given_up"},
    ),
    "an absent server is given up": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except TemporaryError as e:\n            if 'answered' in str(e): raise\n"
        "            raise PermanentError('away') from None\n" + HTTP,
        {
            "test_a_failed_handshake_is_tried_again",
            "test_an_absent_other_side_is_tried_again",
            "test_a_broken_answer_is_tried_again",
            "test_it_posts_to_no_network_that_is_not_allowed",
            "test_no_answer_is_tried_again",
        },
    ),
    "it posts wherever it likes": (
        POSTING + "    networks = property(lambda self: Consumer.networks, lambda self, allowed: None)\n" + HTTP,
        {"test_it_posts_to_no_network_that_is_not_allowed"},
    ),
    "a failed handshake is given up": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except TemporaryError as e:\n            if 'SSL' not in str(e): raise\n"
        "            raise PermanentError('no TLS') from None\n" + HTTP,
        {"test_a_failed_handshake_is_tried_again"},
    ),
    "Retry-After of some answers": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except TemporaryError as e:\n            if '429' in str(e) or '503' in str(e): raise\n"
        "            raise TemporaryError(str(e)) from None\n" + HTTP,
        {"test_retry_after_is_kept_with_every_answer"},
    ),
    "an answer that is no refusal": (
        POSTING
        + "    def check(self, status, headers, body):\n        if status != 304: super().check(status, headers, body)\n"
        + HTTP,
        {"test_what_will_not_pass_is_given_up"},
    ),
    "a password of a URL in an error": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except PermanentError as e:\n            raise PermanentError(f'{e} at {self.config.url}') from None\n" + HTTP,
        {"test_a_password_in_the_url_is_told_nobody"},
    ),
    "a login in the log": (
        POSTING.replace(
            "        return Http", "        logging.info('with %s', b64encode(b'me:' + token.encode()))\n        return Http"
        ).replace("\nclass UrlConfig", "\nfrom base64 import b64encode\nclass UrlConfig")
        + HTTP.replace("HttpConsumerContract", "ConsumerContract"),
        {"test_a_preview_shows_no_secret", "test_a_probe_tells_no_secret"},
    ),
    "a refused secret that is repeated": (
        'from pydantic import field_validator\nclass BadConfig(NoteConfig):\n    @field_validator("token")\n    @classmethod\n'
        "    def known(cls, token):\n        if 'sesame' not in token.get_secret_value():\n"
        '            raise ValueError(f"{token.get_secret_value()} opens nothing")\n        return token\n'
        'class Bad(Filter[BadConfig]):\n    """Bad."""\n    def filter(self, m): yield m\n'
        + FILTER
        + '    options = {"token": "sesame-open"}\n',
        {"test_a_secret_that_is_refused_is_not_repeated"},
    ),
    "Retry-After is not read": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except TemporaryError as e:\n            raise TemporaryError(str(e)) from None\n" + HTTP,
        {"test_retry_after_is_kept", "test_retry_after_is_kept_with_every_answer", "test_retry_after_may_be_a_date"},
    ),
    "the path in an error": (
        POSTING + "    async def consume(self, m):\n        try:\n            await super().consume(m)\n"
        "        except PermanentError as e:\n            raise PermanentError(f'{self.config.url} {e}') from None\n"
        + HTTP.replace("{url}", "{url}/hooks/abc"),
        {"test_errors_hold_no_secret", "test_a_password_in_the_url_is_told_nobody"},
    ),
    "a probe that sends the message": (
        POSTING
        + "    async def probe(self):\n        await self.send(self.request(Message(source='t')))\n        return 'fine'\n"
        + HTTP,
        {"test_a_probe_sends_no_message"},
    ),
    "a probe that tells the token": (
        POSTING + "    async def probe(self): return f'{self.config.token.get_secret_value()} is good'\n" + HTTP,
        {"test_a_probe_tells_no_secret", "test_a_probe_sends_no_message", "test_a_probe_finds_that_it_is_away"},
    ),
    "a probe that gives up what is away": (
        POSTING + "    async def probe(self): raise PermanentError('away')\n" + HTTP,
        {"test_a_probe_finds_that_it_is_away"},
    ),
    "a request that differs each time": (
        POSTING.replace("message.title.encode()", "str(id(self)).encode()") + HTTP,
        {"test_the_request_depends_on_the_message_alone"},
    ),
}


@pytest.mark.parametrize(("code", "caught_by"), BAD.values(), ids=BAD.keys())
def test_bad_plugins_are_caught(pytester, code, caught_by):
    failed, _ = results(pytester, code)
    assert failed - BY_CHANCE == caught_by - BY_CHANCE
    assert caught_by <= failed


def test_without_pytest_it_says_what_to_do():
    code = "from importlib import util\nutil.find_spec = lambda name: None\nimport pipeline.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.endswith("pip install pytest\n")


def test_the_api_itself_does_not_import_pytest():
    code = "import sys, pipeline; print(*(name in sys.modules for name in ('pytest', 'cel', 'jinja2')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False False False\n"
