"""Discord: against a stand-in of its webhooks that holds what it is sent to Discord's schema, limits and rate limits."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from time import monotonic
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.discord import Discord, DiscordConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer, Recollection
from pipeline.testing.consumers import deliver

pytestmark = pytest.mark.against("consumer discord", "a server of our own that holds embeds to Discord's schema and limits")

HOOK = "/api/webhooks/123/a-very-secret-token"
TIME = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


class TestDiscord(HttpConsumerContract):
    plugin = Discord
    options = {"url": "{url}" + HOOK}
    good_body = b'{"id": "1", "channel_id": "2"}'


class TestDiscordInAThread(HttpConsumerContract):
    plugin = Discord
    options = {"url": "{url}" + HOOK + "?with_components=true", "thread": "77"}
    good_body = b'{"id": "1", "channel_id": "77"}'


class RefusedError(Exception):
    """What the stand-in answers with: status, code, message."""


class Webhook(LoopbackServer):
    """What Discord does with messages of a webhook, as far as a sender can tell."""

    def __init__(self):
        super().__init__()
        self.reset()

    def reset(self):
        self.messages, self.threads, self.changed, self.headers = {}, {}, [], {}
        self.forum = False
        self.received.clear()
        self.answers.clear()

    def next_answer(self, request):
        self.received.append(request)
        if self.answers:
            return self.answers.popleft()
        try:
            body = json.dumps(self._call(request)).encode()
            return Answer(200, self.headers, body)
        except RefusedError as error:
            status, code, text = error.args
            return Answer(status, self.headers, json.dumps({"message": text, "code": code}).encode())

    def _call(self, request):
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        found = re.fullmatch(rf"{HOOK}(?:/messages/(\d+))?", parts.path)
        require(found, 404, 10015, "Unknown Webhook")
        require(request.headers["content-type"] == "application/json", 400, 50109, "The request body contains invalid JSON.")
        require(re.fullmatch(r"DiscordBot \(\S+, \S+\)", request.headers["user-agent"]), 403, 40333, "internal network error")
        content = json.loads(request.body)
        check_content(content, changed=found[1] is not None)
        thread = query.get("thread_id")
        if found[1]:
            require(request.method == "PATCH", 405, 0, "405: Method Not Allowed")
            require(found[1] in self.messages and self.messages[found[1]][0] == thread, 404, 10008, "Unknown Message")
            self.messages[found[1]] = (thread, self.messages[found[1]][1] | content)
            self.changed.append(found[1])
            return {"id": found[1], "channel_id": thread or "5"}
        require(request.method == "POST", 405, 0, "405: Method Not Allowed")
        require(query.get("wait") == "true", 400, 0, "the stand-in wants wait=true")
        return self._post(content, thread)

    def _post(self, content, thread):
        name = content.pop("thread_name", None)
        if thread:
            require(thread in self.threads, 404, 10003, "Unknown Channel")
        elif self.forum:
            require(name, 400, 220001, "Webhooks posted to forum channels must have a thread_name or thread_id")
            thread = str(700 + len(self.threads))
            self.threads[thread] = name
        else:
            require(not name, 400, 220003, "Webhooks can only create threads in forum channels")
        place = str(100 + len(self.messages))
        self.messages[place] = (thread, content)
        return {"id": place, "channel_id": thread or "5"}

    @property
    def contents(self):
        return [content for _, content in self.messages.values()]


FORM = (400, 50035, "Invalid Form Body")
ARGUMENTS = {"content", "embeds", "allowed_mentions"}


def check_content(content, *, changed=False):
    """Hold a message to the schema and limits of https://docs.discord.com/developers/resources/message."""
    more = set() if changed else {"username", "avatar_url", "flags", "thread_name"}
    require(not content.keys() - ARGUMENTS - more, *FORM)
    require(size(content["content"]) <= 2_000, *FORM)
    require(content["content"] or content["embeds"], 400, 50006, "Cannot send an empty message")
    require({*content["allowed_mentions"]["parse"]} <= {"everyone", "roles", "users"}, *FORM)
    require(1 <= len(content.get("username", "x")) <= 80, *FORM)
    require(1 <= size(content.get("thread_name", "x")) <= 100, *FORM)
    require(len(content["embeds"]) <= 10, *FORM)
    total = sum(check_embed(embed) for embed in content["embeds"])
    require(total <= 6_000, *FORM)


def check_embed(embed):
    require(not embed.keys() - {"title", "description", "url", "timestamp", "color", "footer", "fields"}, *FORM)
    require(0 <= embed["color"] <= 0xFFFFFF, *FORM)
    require(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", embed["timestamp"]), *FORM)
    if "url" in embed:
        host = urlsplit(embed["url"])
        require(host.scheme in ("http", "https") and re.search(r"\.[a-z]+$", host.hostname or ""), *FORM)
        require(len(embed["url"]) <= 2_048 and not re.search(r"[\s<>]", embed["url"]), *FORM)
    texts = [(embed["title"], 256), (embed.get("description", "x"), 4_096), (embed.get("footer", {"text": "x"})["text"], 2_048)]
    require(len(embed["fields"]) <= 25, *FORM)
    for field in embed["fields"]:
        require(field.keys() == {"name", "value", "inline"}, *FORM)
        texts += [(field["name"], 256), (field["value"], 1_024)]
    require(all(text.strip() and size(text) <= most for text, most in texts), *FORM)
    return sum(size(text) for text, _ in texts)


def require(condition, *refusal):
    if not condition:
        raise RefusedError(*refusal)


def size(text):
    """Count as strictly as Discord might: in UTF-16 units."""
    return len(text.encode("utf-16-le")) // 2


@pytest.fixture(scope="module")
def server():
    with Webhook() as made:
        yield made


@pytest.fixture
def hook(server):
    server.reset()
    return server


@pytest.fixture
def discord(hook):
    def make(**options):
        plugin = Discord(DiscordConfig.model_validate({"url": hook.url + HOOK} | options))
        plugin.memory = Recollection()
        return plugin

    return make


def alert(**fields):
    known = {"source": "prometheus", "time": TIME, "key": "k", "severity": "critical", "title": "disk full", "text": "2 % left"}
    return Message(**known | {"labels": {"team": "db"}, "url": "https://p.example/graph?a=1"} | fields)


def shown(content):
    (embed,) = content["embeds"]
    return embed["title"], embed["color"], embed.get("description")


def test_a_message_as_an_embed_in_its_colour(discord, hook):
    deliver(discord(), alert())
    assert hook.contents == [
        {
            "content": "",
            "embeds": [
                {
                    "title": "disk full",
                    "color": 0xD50F25,
                    "timestamp": "2026-11-21T08:30:00Z",
                    "url": "https://p.example/graph?a=1",
                    "description": "2 % left",
                    "footer": {"text": "critical · prometheus"},
                    "fields": [{"name": "team", "value": "db", "inline": True}],
                }
            ],
            "allowed_mentions": {"parse": []},
        }
    ]


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a_b_c _d_ e__f *g* `h` \\", r"a_b_c \_d\_ e\_\_f \*g\* \`h\` \\"),
        ("~e~ ~~f~~ |g| ||h|| [i] [j](k)", r"~e~ \~\~f\~\~ |g| \|\|h\|\| [i] [j\](k)"),
        ("# one\n> two\n-# three\n- four # five", "\\# one\n\\> two\n\\-# three\n- four # five"),
        ("see https://x.example/_b_*d and _b", "see https://x.example/_b_*d and \\_b"),
        ("<@&1> <@2> <:x:3> <t:1> @everyone 1 < 2", r"\<@&1> \<@2> \<:x:3> \<t:1> @everyone 1 < 2"),
    ],
)
def test_markdown_is_escaped_save_in_links(discord, hook, text, escaped):
    deliver(discord(), alert(text=text, title=text.split("\n", maxsplit=1)[0]))
    assert shown(hook.contents[0])[2] == escaped
    assert hook.contents[0]["allowed_mentions"] == {"parse": []}


@pytest.mark.parametrize(
    "url", ["http://prometheus:9090/graph?g0.expr=up", "http://10.0.0.1:9090", "javascript:x", "http://localhost"]
)
def test_a_url_that_discord_refuses_stands_in_the_text(discord, hook, url):
    deliver(discord(), alert(url=url))
    deliver(discord(), alert(url=url, text=""))
    assert [shown(content)[2] for content in hook.contents] == [f"2 % left\n{url}", url]
    assert "url" not in hook.contents[0]["embeds"][0]


def test_an_own_text_labels_mentions_and_looks(discord, hook):
    plugin = discord(
        text="**{{ labels.team }}** {{ text }}",
        labels=["env", "team"],
        mention='{% if severity == "critical" %}<@&42>{% endif %}',
        username="Siftbell",
        avatar_url="https://x.example/a.png",
        silent=True,
    )
    deliver(plugin, alert(labels={"team": "d_b", "noise": "x"}))
    deliver(plugin, alert(severity="info", key="other"))
    first, second = hook.contents
    assert shown(first)[2] == "**d_b** 2 % left"
    assert first["embeds"][0]["fields"] == [{"name": "team", "value": "d_b", "inline": True}]
    assert (first["content"], first["allowed_mentions"]["parse"]) == ("<@&42>", ["everyone", "roles", "users"])
    assert (first["username"], first["avatar_url"], first["flags"]) == ("Siftbell", "https://x.example/a.png", 4096)
    assert (second["content"], second["allowed_mentions"]["parse"]) == ("", [])


def test_a_later_message_of_a_key_is_posted_and_changes_the_first(discord, hook):
    plugin = discord()
    deliver(plugin, alert())
    deliver(plugin, alert(status="resolved"))
    assert [shown(content)[:2] for content in hook.contents] == [("Resolved: disk full", 0x2EB67D)] * 2
    deliver(plugin, alert())
    assert len(hook.messages) == 3
    assert hook.changed == ["100"]


@pytest.mark.parametrize(("follow_up", "posted", "changed"), [("update", 1, 1), ("post", 2, 0)])
def test_a_follow_up_may_be_one_of_the_two(discord, hook, follow_up, posted, changed):
    plugin = discord(follow_up=follow_up)
    deliver(plugin, alert())
    deliver(plugin, alert(text="1 % left"))
    assert (len(hook.messages), len(hook.changed)) == (posted, changed)


def test_in_a_forum_each_key_has_a_post_of_its_own(discord, hook):
    hook.forum = True
    plugin = discord(forum=True)
    deliver(plugin, alert())
    deliver(plugin, alert(title="other", key="o"))
    deliver(plugin, alert(status="resolved"))
    assert hook.threads == {"700": "disk full", "701": "other"}
    assert [thread for thread, _ in hook.messages.values()] == ["700", "701", "700"]
    assert hook.changed == ["100"]
    hook.threads.clear()
    deliver(plugin, alert(title="other again", key="o"))
    assert [*hook.threads.values()] == ["other again"]


def test_messages_go_into_a_thread(discord, hook):
    hook.threads["77"] = "alerts"
    plugin = discord(thread="77")
    deliver(plugin, alert())
    deliver(plugin, alert(status="resolved"))
    assert [thread for thread, _ in hook.messages.values()] == ["77", "77"]
    assert hook.changed == ["100"]


def test_where_the_first_one_is_gone_the_next_is_posted_anew(discord, hook):
    plugin = discord(follow_up="update")
    deliver(plugin, alert())
    hook.messages.clear()
    deliver(plugin, alert(text="1 % left"))
    deliver(plugin, alert(text="0 % left"))
    assert [shown(content)[2] for content in hook.contents] == ["0 % left"]


def failure(plugin, kind):
    with pytest.raises(kind) as caught:
        deliver(plugin, alert())
    assert "very-secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"Retry-After": "65"}, b'{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}', 64.57),
        ({"Retry-After": "7"}, b"error code: 1015", 7),
        ({"X-RateLimit-Reset-After": "1.25"}, b"", 1.25),
        ({}, b'{"retry_after": "soon"}', None),
        ({}, b'{"retry_after": 1e99}', None),
        ({}, b'{"retry_after": 999999999}', 86400),
    ],
)
def test_a_wait_that_discord_asks_for_is_kept(discord, hook, headers, body, seconds):
    hook.answers.append(Answer(429, headers, body))
    assert failure(discord(), TemporaryError).retry_after == seconds


def test_after_a_long_wait_was_asked_for_nothing_is_sent_until_then(discord, hook):
    plugin = discord()
    hook.answers.append(Answer(429, {}, b'{"retry_after": 60}'))
    failure(plugin, TemporaryError)
    assert 50 < failure(plugin, TemporaryError).retry_after <= 60
    assert len(hook.received) == 1


def test_where_the_limit_is_reached_the_next_one_waits(discord, hook, monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr("consumers.discord.asyncio.sleep", sleep)
    plugin = discord()
    hook.headers = {"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset-After": "2.0"}
    deliver(plugin, alert(key=""))
    hook.headers |= {"X-RateLimit-Remaining": "0"}
    deliver(plugin, alert(key=""))
    assert slept == []
    deliver(plugin, alert(key=""))
    assert len(slept) == 1
    assert 0 < slept[0] <= 2


def test_messages_one_after_the_other_keep_within_the_limit(discord, hook):
    call, windows, refused = hook._call, [], []

    def limited(request):
        """Take five in each window, which begins with the first of them."""
        now = monotonic()
        if not windows or now >= windows[-1][0]:
            windows.append((now + 0.2, []))
        end, taken = windows[-1]
        if len(taken) == 5:
            refused.append(request)
            raise RefusedError(429, 0, "You are being rate limited.")
        taken.append(request)
        hook.headers = {"X-RateLimit-Remaining": str(5 - len(taken)), "X-RateLimit-Reset-After": f"{end - now + 0.001:.3f}"}
        return call(request)

    hook._call = limited
    try:
        plugin = discord(follow_up="post")
        for number in range(12):
            deliver(plugin, alert(title=str(number)))
    finally:
        del hook._call
    assert (refused, len(windows) >= 3) == ([], True)
    assert [shown(content)[0] for content in hook.contents] == [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("status", "code", "text", "advice"),
    [
        (404, 10015, "Unknown Webhook", "make a new one"),
        (401, 50027, "Invalid Webhook Token", "copy the URL again"),
        (400, 220001, "Webhooks posted to forum channels must have a thread_name or thread_id", "forum: true"),
        (400, 50035, "Invalid Form Body", "Invalid Form Body"),
        (400, [1], "odd", "odd"),
    ],
)
def test_what_discord_refuses_is_buried_with_advice(discord, hook, status, code, text, advice):
    hook.answers.append(Answer(status, {}, json.dumps({"message": text, "code": code}).encode()))
    assert advice in str(failure(discord(), PermanentError))


def test_a_forum_that_is_none_and_one_that_was_not_said(discord, hook):
    assert "leave out forum" in str(failure(discord(forum=True), PermanentError))
    hook.forum = True
    assert "say forum: true" in str(failure(discord(), PermanentError))


def test_what_is_too_long_is_cut_with_a_mark(discord, hook):
    labels = {f"label_{number}": "v_" * 1_000 for number in range(40)}
    deliver(
        discord(), alert(title="t_" * 5_000, text="x_" * 5_000, labels=labels, source="s" * 5_000, url="http://h/" + "u" * 9_000)
    )
    ((embed,),) = [content["embeds"] for content in hook.contents]
    assert embed["title"].endswith("…")
    assert re.search(r"x\\?_?…\nhttp://h/u+…$", embed["description"])
    assert 1 <= len(embed["fields"]) < 25
    assert all(field["value"].endswith("…") for field in embed["fields"])


TEXTS = st.text(st.sampled_from("ab_*\\`<>#- \n|*😀ü…https://x.y"), max_size=40) | st.text(max_size=40)


@settings(deadline=None)
@given(
    title=TEXTS,
    text=TEXTS,
    factor=st.integers(1, 2_000),
    labels=st.dictionaries(TEXTS, TEXTS, max_size=30),
    url=TEXTS,
    forum=st.booleans(),
)
def test_whatever_a_message_holds_discord_takes_it(title, text, factor, labels, url, forum):
    plugin = Discord(DiscordConfig(url="https://discord.com/api/webhooks/1/x", forum=forum))
    message = alert(title=title * factor, text=text * factor, labels=labels, url=f"https://x.example/{url}", source=title)
    check_content(json.loads(plugin.request(message).body))


@pytest.mark.parametrize(
    "options",
    [
        {"url": "discord.com/api/webhooks/1/x"},
        {"thread": "alerts"},
        {"thread": "1", "forum": True},
        {"follow_up": "reply"},
        {"username": ""},
        {"text": "{{ titel }}"},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValidationError):
        DiscordConfig.model_validate({"url": "https://discord.com/api/webhooks/1/x"} | options)
