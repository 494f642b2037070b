"""Slack: against a stand-in of the Web API and of incoming webhooks that holds what it is sent to Slack's rules and limits."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.slack import Slack, SlackConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer, Recollection
from pipeline.testing.consumers import deliver

pytestmark = pytest.mark.against("consumer slack", "a server of our own that holds blocks to Slack's rules and limits")

TOKEN = "xoxb-a-very-secret-token"
HOOK = "/services/T000/B000/very-secret"
TIME = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


class TestSlackAsABot(HttpConsumerContract):
    plugin = Slack
    options = {"token": TOKEN, "channel": "C1", "base_url": "{url}/api"}
    good_body = b'{"ok": true, "channel": "C1", "ts": "1.1"}'


class TestSlackThroughAWebhook(HttpConsumerContract):
    plugin = Slack
    options = {"url": "{url}" + HOOK}
    good_body = b"ok"


class RefusedError(Exception):
    """What the stand-in answers with."""

    def __init__(self, code, *details):
        super().__init__(code)
        self.details = details


class SlackApi(LoopbackServer):
    """What Slack does with messages, as far as a sender can tell. `refusals` are answered first."""

    def __init__(self):
        super().__init__()
        self.messages, self.threads, self.refusals, self.limited = {}, {}, [], []
        self.changed, self.channels = [], []

    def next_answer(self, request):
        self.received.append(request)
        if self.answers:
            return self.answers.popleft()
        try:
            content = self._read(request)
            if request.path == HOOK:
                self.messages[len(self.messages)] = content
                return Answer(body=b"ok")
            return self._answer(ok=True, **self._call(request, content))
        except RefusedError as error:
            if request.path == HOOK:
                return Answer(400, body=str(error).encode())
            return self._answer(ok=False, error=str(error), response_metadata={"messages": [*error.details]})

    def _call(self, request, content):
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            raise RefusedError("invalid_auth")
        if self.refusals:
            raise RefusedError(self.refusals.pop(0))
        channel = content.pop("channel", None)
        if channel not in ("C1", "C2", "#alerts"):
            raise RefusedError("channel_not_found")
        if request.path == "/api/chat.update":
            if "channel" in content or content["ts"] not in self.messages:
                raise RefusedError("message_not_found")
            ts = content.pop("ts")
            self.messages[ts] = content
            self.changed.append(ts)
        elif (thread := content.pop("thread_ts", None)) is not None:
            if thread not in self.messages:
                raise RefusedError("thread_not_found")
            ts = f"{thread}.{len(self.threads.setdefault(thread, []))}"
            self.threads[thread].append(content)
        else:
            ts = f"1700000000.{len(self.messages):06}"
            self.messages[ts] = content
        self.channels.append(channel)
        return {"channel": channel.replace("#alerts", "C1"), "ts": ts}

    def _read(self, request):
        if request.headers["content-type"] != "application/json; charset=utf-8":
            raise RefusedError("invalid_post_type")
        if request.path not in (HOOK, "/api/chat.postMessage", "/api/chat.update"):
            raise RefusedError("unknown_method")
        content = json.loads(request.body)
        check_content(content)
        return content

    @staticmethod
    def _answer(**fields):
        return Answer(body=json.dumps(fields).encode())


ARGUMENTS = {
    "channel",
    "text",
    "attachments",
    "unfurl_links",
    "unfurl_media",
    "ts",
    "thread_ts",
    "reply_broadcast",
    "username",
    "icon_emoji",
}
CONTROL = r"<(?:https?://[^\s<>|]+(?:\|[^<>]+)?|![a-z]+(?:\^[^<>|]+)*(?:\|[^<>|]+)?|[@#][A-Z0-9]+)>"


def check_content(content):
    """Hold a message to the limits of https://docs.slack.dev/reference/block-kit/blocks."""
    require(not content.keys() - ARGUMENTS, "invalid_arguments", f"unknown: {content.keys() - ARGUMENTS}")
    require(content.get("text"), "no_text")
    require(size(content["text"]) <= 4_000, "msg_too_long")  # up to 40,000 are taken, but torn into several messages
    check_markup(content["text"])
    require(len(content["attachments"]) <= 100, "too_many_attachments")
    for attachment in content["attachments"]:
        require(attachment.keys() == {"color", "blocks"}, "invalid_attachments")
        require(re.fullmatch("#[0-9a-f]{6}", attachment["color"]), "invalid_attachments", "color")
        require(1 <= len(attachment["blocks"]) <= 50, "invalid_blocks", "no more than 50 items allowed")
        for block in attachment["blocks"]:
            check_block(block)
        require(len(json.dumps(attachment["blocks"])) <= 13_100, "msg_blocks_too_long")


def check_block(block):
    kind = block["type"]
    require(kind in ("section", "context"), "invalid_blocks", f"unsupported type: {kind}")
    if kind == "context":
        require(block.keys() == {"type", "elements"} and 1 <= len(block["elements"]) <= 10, "invalid_blocks", "elements")
        texts, most = block["elements"], 3_000
    elif "fields" in block:
        require(block.keys() == {"type", "fields"} and 1 <= len(block["fields"]) <= 10, "invalid_blocks", "fields")
        texts, most = block["fields"], 2_000
    else:
        require(block.keys() == {"type", "text"}, "invalid_blocks", "text")
        texts, most = [block["text"]], 3_000
    for text in texts:
        require(text.keys() == {"type", "text"} and text["type"] == "mrkdwn", "invalid_blocks", "text object")
        require(1 <= size(text["text"]) <= most, "invalid_blocks", f"must be less than {most + 1} characters")
        check_markup(text["text"])


def check_markup(text):
    """Everything but Slack's own sequences must be escaped: https://docs.slack.dev/messaging/formatting-message-text."""
    rest = re.sub(CONTROL, "", text)
    require("<" not in rest and ">" not in rest, "invalid_blocks", f"unescaped: {rest[:80]}")
    require(not re.search("&(?!amp;|lt;|gt;)", rest), "invalid_blocks", f"half an entity: {rest[-80:]}")


def require(condition, code, *details):
    if not condition:
        raise RefusedError(code, *details)


def size(text):
    """Count as strictly as Slack might: in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


@pytest.fixture(scope="module")
def server():
    with SlackApi() as made:
        yield made


@pytest.fixture
def api(server):
    for kept in (
        server.messages,
        server.threads,
        server.refusals,
        server.changed,
        server.channels,
        server.received,
        server.answers,
    ):
        kept.clear()
    return server


@pytest.fixture
def slack(api):
    def make(**options):
        bot = {"token": TOKEN, "channel": "C1", "base_url": f"{api.url}/api"}
        plugin = Slack(SlackConfig.model_validate(({} if "url" in options else bot) | options))
        plugin.memory = Recollection()
        return plugin

    return make


def alert(**fields):
    known = {
        "source": "http://prometheus",
        "time": TIME,
        "key": "k",
        "severity": "critical",
        "title": "disk full",
        "text": "2 % left",
    }
    return Message(**known | {"labels": {"team": "db"}, "url": "http://p/graph?a=1&b=|x>"} | fields)


def shown(content):
    (attachment,) = content["attachments"]
    texts = [block.get("text", {}).get("text") for block in attachment["blocks"] if "text" in block]
    return content["text"], attachment["color"], texts


def test_a_message_in_blocks_beside_its_colour(slack, api):
    deliver(slack(), alert(title="a <b> & c", text='<!channel> it\'s & "so"'))
    ((content,),) = [api.messages.values()]
    text, colour, texts = shown(content)
    assert text == "<http://p/graph?a=1&amp;b=%7Cx%3E|*a &lt;b&gt; &amp; c*>"
    assert (colour, texts) == ("#d50f25", ['&lt;!channel&gt; it\'s &amp; "so"'])
    _, fields, context = content["attachments"][0]["blocks"]
    assert fields == {"type": "section", "fields": [{"type": "mrkdwn", "text": "*team*\ndb"}]}
    date = "<!date^1795249800^{date_short_pretty} {time_secs}|2026-11-21T08:30:00+00:00>"
    assert context["elements"][0]["text"] == f"critical · http://prometheus · {date}"
    assert (content["unfurl_links"], content["unfurl_media"]) == (False, False)


def test_a_webhook_gets_the_same_message(slack, api):
    plugin = slack(url=api.url + HOOK)
    deliver(plugin, alert())
    deliver(plugin, alert(status="resolved"))
    assert [shown(content)[:2] for content in api.messages.values()] == [
        ("<http://p/graph?a=1&amp;b=%7Cx%3E|*disk full*>", "#d50f25"),
        ("<http://p/graph?a=1&amp;b=%7Cx%3E|*Resolved: disk full*>", "#2eb67d"),
    ]
    assert "authorization" not in api.received[0].headers


def test_an_own_text_labels_mentions_and_looks(slack, api):
    plugin = slack(
        text="*{{ labels.team }}*: {{ text }} '{{ title }}'",
        labels=["env", "team"],
        mention='{% if severity == "critical" %}<!here>{% endif %}',
        username="Siftbell",
        icon_emoji=":fire:",
    )
    deliver(plugin, alert(title="it's <up>", url="", labels={"team": "d&b", "noise": "x"}))
    deliver(plugin, alert(title="calm", url="javascript:x", severity="info", key="other"))
    first, second = api.messages.values()
    assert shown(first) == ("<!here> *it's &lt;up&gt;*", "#d50f25", ["*d&amp;b*: 2 % left 'it's &lt;up&gt;'"])
    assert [field["text"] for field in first["attachments"][0]["blocks"][1]["fields"]] == ["*team*\nd&amp;b"]
    assert second["text"] == "*calm*"
    assert (first["username"], first["icon_emoji"]) == ("Siftbell", ":fire:")


def test_a_message_goes_to_the_channel_that_it_names_and_each_channel_has_its_thread(slack, api):
    plugin = slack(channel="{{ labels.channel }}", follow_up="reply")
    for channel in ("C1", "C2", "C1"):
        deliver(plugin, alert(labels={"channel": channel}))
    assert api.channels == ["C1", "C2", "C1"]
    assert [len(replies) for replies in api.threads.values()] == [1]
    with pytest.raises(PermanentError, match="names no channel"):
        deliver(plugin, alert(labels={"channel": ""}))


def test_later_messages_of_a_key_change_the_first_and_answer_in_its_thread(slack, api):
    one, other = slack(), slack()
    other.memory = one.memory
    deliver(one, alert())
    deliver(other, alert(text="1 % left"))
    deliver(one, alert(status="resolved", text="40 % left"))
    ((first, now),) = api.messages.items()
    assert shown(now)[1:] == ("#2eb67d", ["40 % left"])
    assert [shown(reply)[2] for reply in api.threads[first]] == [["1 % left"], ["40 % left"]]
    deliver(one, alert(text="again"))
    assert len(api.messages) == 2


@pytest.mark.parametrize(
    ("follow_up", "posted", "changed", "replies"), [("update", 1, 1, 0), ("reply", 1, 0, 1), ("post", 2, 0, 0)]
)
def test_a_follow_up_may_be_one_of_the_two_or_none(slack, api, follow_up, posted, changed, replies):
    plugin = slack(follow_up=follow_up, channel="#alerts")
    deliver(plugin, alert())
    deliver(plugin, alert(text="1 % left"))
    assert (len(api.messages), len(api.changed), sum(map(len, api.threads.values()))) == (posted, changed, replies)


def test_a_reply_may_be_shown_in_the_channel_as_well(slack, api):
    plugin = slack(broadcast=True)
    deliver(plugin, alert())
    deliver(plugin, alert(status="resolved"))
    ((reply,),) = api.threads.values()
    assert reply["reply_broadcast"] is True
    assert "reply_broadcast" not in next(iter(api.messages.values()))


def test_messages_without_a_key_and_without_a_memory_stand_alone(slack, api):
    plugin, forgetful = slack(), slack()
    forgetful.memory = None
    for one in (plugin, forgetful):
        for _ in range(2):
            deliver(one, alert(key="" if one is plugin else "k"))
    assert len(api.messages) == 4


@pytest.mark.parametrize("code", ["message_not_found", "cant_update_message", "edit_window_closed"])
def test_where_the_first_one_is_gone_the_next_is_posted_anew(slack, api, code):
    plugin = slack()
    deliver(plugin, alert())
    api.refusals.append(code)
    deliver(plugin, alert(text="1 % left"))
    deliver(plugin, alert(text="0 % left"))
    first, second = api.messages
    assert api.changed == [second]
    assert [*api.threads] == [second]
    assert shown(api.messages[first])[2] == ["2 % left"]


def test_a_thread_that_is_gone_is_begun_anew(slack, api):
    plugin = slack(follow_up="reply")
    deliver(plugin, alert())
    api.messages.clear()
    deliver(plugin, alert(text="1 % left"))
    assert [shown(content)[2] for content in api.messages.values()] == [["1 % left"]]


def test_a_memory_that_fails_after_the_post_costs_no_message(slack, api):
    class Failing(Recollection):
        def remember(self, key, value, within):
            raise TemporaryError("the memory is away")

    plugin = slack()
    plugin.memory = Failing()
    deliver(plugin, alert())
    assert len(api.messages) == 1


def failure(plugin, kind, message=None):
    with pytest.raises(kind) as caught:
        deliver(plugin, message or alert())
    assert TOKEN not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    "code", ["internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org", "ratelimited"]
)
def test_what_slack_cannot_do_now_is_tried_again(slack, api, code):
    api.refusals.append(code)
    assert code in str(failure(slack(), TemporaryError))


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("not_in_channel", "/invite"),
        ("channel_not_found", "the channel's id"),
        ("missing_scope", "chat:write"),
        ("token_revoked", "new token"),
        ("restricted_action", "restricted_action"),
        ("message_not_found", "message_not_found"),
    ],
)
def test_what_slack_refuses_is_buried_with_advice(slack, api, code, advice):
    api.refusals.append(code)
    assert advice in str(failure(slack(), PermanentError))


def test_a_wrong_token_and_a_wrong_channel(slack):
    assert "does not know the token" in str(failure(slack(token="xoxb-of-somebody-else"), PermanentError))
    assert "give the channel's id" in str(failure(slack(channel="C404"), PermanentError))


def test_a_rate_limit_is_kept(slack, api):
    api.answers.append(Answer(429, {"Retry-After": "30"}, b'{"ok": false, "error": "ratelimited"}'))
    assert failure(slack(), TemporaryError).retry_after == 30
    api.answers.append(Answer(200, {"Retry-After": "7"}, b'{"ok": false, "error": "rate_limited"}'))
    assert failure(slack(), TemporaryError).retry_after == 7


def test_what_slack_finds_wrong_is_told(slack, api):
    told = {
        "ok": False,
        "error": "invalid_blocks",
        "response_metadata": {"messages": ["[ERROR] too long [json-pointer:/blocks/0]"]},
    }
    api.answers.append(Answer(body=json.dumps(told).encode()))
    assert "invalid_blocks ([ERROR] too long [json-pointer:/blocks/0])" in str(failure(slack(), PermanentError))


@pytest.mark.parametrize("body", [b"", b"<html>a proxy</html>", b"[1]", b"{}", b'{"ok": "yes"}'])
def test_an_answer_that_is_not_slacks_is_no_success_of_a_bot(slack, api, body):
    api.answers.append(Answer(body=body))
    failure(slack(), TemporaryError)


@pytest.mark.parametrize(("status", "text"), [(404, "no_service"), (410, "channel_is_archived"), (403, "action_prohibited")])
def test_what_a_webhook_refuses_is_buried(slack, api, status, text):
    api.answers.append(Answer(status, body=text.encode()))
    assert text in str(failure(slack(url=api.url + HOOK), PermanentError))


def test_what_is_too_long_is_cut_with_a_mark(slack, api):
    labels = {f"label-{number}": "v" * 3_000 for number in range(40)}
    lines = "".join(f"line {number} is <here> & there\n" for number in range(1_000))
    deliver(slack(), alert(title="t" * 5_000, text=lines, labels=labels, source="s" * 5_000))
    ((content,),) = [api.messages.values()]
    text, _, texts = shown(content)
    assert text.endswith("…*>")
    assert len(texts) > 1
    joined = "".join(texts)
    assert all(f"line {number} is &lt;here&gt; &amp; there\n" in joined for number in range(100))
    assert joined.endswith("…")
    assert "30 more labels" in content["attachments"][0]["blocks"][-1]["elements"][0]["text"]


TEXTS = st.text(st.sampled_from("ab&<>'\"\n |*😀ü…"), max_size=40) | st.text(max_size=40)


@settings(deadline=None)
@given(title=TEXTS, text=TEXTS, factor=st.integers(1, 2_000), labels=st.dictionaries(TEXTS, TEXTS, max_size=14), url=TEXTS)
def test_whatever_a_message_holds_slack_takes_it(title, text, factor, labels, url):
    plugin = Slack(SlackConfig(token=TOKEN, channel="C1"))
    message = alert(title=title * factor, text=text * factor, labels=labels, url=f"https://x/{url}", source=title)
    check_content(json.loads(plugin.request(message).body))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token": TOKEN},
        {"channel": "C1"},
        {"url": "https://hooks.slack.com/x", "token": TOKEN, "channel": "C1"},
        {"url": "hooks.slack.com/x"},
        {"token": TOKEN, "channel": "C1", "follow_up": "edit"},
        {"token": TOKEN, "channel": "C1", "icon_emoji": "fire"},
        {"token": TOKEN, "channel": "C1", "text": "{{ titel }}"},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValidationError):
        SlackConfig.model_validate(options)
