"""GitHub polled: pages, changes meanwhile, ETags, rate limits, apps, against a server of our own that keeps GitHub's rules."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from structlog.testing import capture_logs

from pipeline import ConfigError, PermanentError, TemporaryError
from pipeline.engine.assembly import make_runner
from pipeline.engine.batch import encode
from pipeline.settings import Settings
from pipeline.spec.loader import load
from pipeline.testing import Answer, LoopbackServer, PollingProducerContract
from producers import github as manual
from producers.github import Github, GithubConfig

pytestmark = pytest.mark.against(
    "producer github", "a server of our own that keeps the rules of GitHub's REST API: Link, ETag, limits, apps"
)
TOKEN = "a-token-of-somebody's"
START = datetime(2026, 11, 20, 8, tzinfo=UTC)
LONG_AGO = {"start": "36500d"}


class GithubServer(LoopbackServer):
    """Keeps pull requests, issues and notifications, and answers as GitHub does; refuses what GitHub refuses."""

    def __init__(self):
        super().__init__()
        self.lists = {}
        self.tokens = {TOKEN}
        self.remaining = 5000
        self.counted = 0
        self.secondary = False
        self.poll_interval = ""
        self.before_page = {}
        self.before_each_second_page = lambda: None
        self.app_key = None
        self.installations = {}
        self.made_tokens = 0
        self._lock = threading.Lock()

    def put(self, path, number, minutes=0, seconds=0, **fields):
        """Add an item, or change it, at so many minutes after the start."""
        moment = stamp(minutes, seconds)
        items = self.lists.setdefault(path, {})
        kind = "pull" if path.endswith("pulls") else "issues"
        repository = "/".join(path.split("/")[2:4])
        old = items.get(number, {"created_at": moment})
        items[number] = {
            "id": 1000 + number,
            "number": number,
            "title": f"item {number}",
            "state": "open",
            "user": {"login": "monalisa"},
            "html_url": f"https://github.com/{repository}/{kind}/{number}",
            **old,
            "updated_at": moment,
            **fields,
        }

    def next_answer(self, request):
        with self._lock:
            self.received.append(request)
            parts = urlsplit(request.path)
            if "user-agent" not in request.headers or "github" not in request.headers.get("accept", ""):
                return Answer(403, body=b'{"message": "Request forbidden by administrative rules."}')
            if parts.path.startswith("/app") or parts.path.endswith("/installation"):
                return self._for_app(request, parts.path)
            if request.headers.get("authorization", "").removeprefix("token ") not in self.tokens:
                return Answer(401, body=b'{"message": "Bad credentials"}')
            if parts.path == "/user":
                return Answer(body=b'{"login": "monalisa"}')
            return self._list(request, parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def _list(self, request, path, query):
        if self.secondary:
            return Answer(403, body=b'{"message": "You have exceeded a secondary rate limit. Please wait."}')
        limits = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": str(self.remaining)}
        limits["X-RateLimit-Reset"] = str(int(time.time()) + 1800)
        if self.remaining <= 0:
            return Answer(403, limits, b'{"message": "API rate limit exceeded"}')
        if path not in self.lists:
            return Answer(404, limits, b'{"message": "Not Found"}')
        page, size = int(query.pop("page", 1)), min(int(query.get("per_page", 30)), 100)
        if page in self.before_page:
            self.before_page.pop(page)()
        if page == 2:
            self.before_each_second_page()
        items = self._chosen(path, query)
        part = items[(page - 1) * size : page * size]
        body = json.dumps(part).encode()
        tag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        headers = {**limits, "Content-Type": "application/json; charset=utf-8", "ETag": tag}
        if self.poll_interval:
            headers["X-Poll-Interval"] = self.poll_interval
        if request.headers.get("if-none-match") == tag:
            return Answer(304, headers)
        self.remaining -= 1
        self.counted += 1
        if page * size < len(items):
            following = urlencode({**query, "page": page + 1})
            headers["Link"] = f'<{self.url}{path}?{following}>; rel="next", <{self.url}{path}?{following}>; rel="last"'
        return Answer(200, headers, body)

    def _chosen(self, path, query):
        items = list(self.lists[path].values())
        if path == "/notifications":
            items = [item for item in items if query.get("all") == "true" or item.get("unread")]
            field, down = "updated_at", True
        else:
            field = {"updated": "updated_at"}.get(query.get("sort"), "created_at")
            down = query.get("direction", "desc") == "desc"
            items = [item for item in items if query.get("state", "open") in ("all", item["state"])]
        if not path.endswith("pulls"):  # the list of pull requests knows no `since`
            items = [item for item in items if item["updated_at"] >= query.get("since", "")]
        return sorted(items, key=lambda item: (item[field], item["id"]), reverse=down)

    def _for_app(self, request, path):
        proof = request.headers.get("authorization", "").removeprefix("bearer ")
        try:
            claims = jwt.decode(proof, self.app_key, algorithms=["RS256"], options={"require": ["exp", "iat", "iss"]})
        except jwt.PyJWTError:
            return Answer(401, body=b'{"message": "A JSON web token could not be decoded"}')
        if claims["exp"] - time.time() > 600 or claims["iss"] != "12345":
            return Answer(401, body=b"{\"message\": \"'Expiration time' claim ('exp') is too far in the future\"}")
        if path == "/app":
            return Answer(body=b'{"slug": "bell"}')
        if path.endswith("/installation"):
            number = self.installations.get(path.split("/")[2])
            return Answer(body=json.dumps({"id": number}).encode()) if number else Answer(404)
        if request.method != "POST" or int(path.split("/")[3]) not in self.installations.values():
            return Answer(404)
        self.made_tokens += 1
        self.tokens.add(f"ghs_{self.made_tokens}")
        made = {"token": f"ghs_{self.made_tokens}", "expires_at": "2030-01-01T00:00:00Z"}
        return Answer(201, {"Content-Type": "application/json"}, json.dumps(made).encode())


PULLS = "/repos/acme/shop/pulls"
ISSUES = "/repos/acme/shop/issues"


def stamp(minutes=0, seconds=0):
    return (START + timedelta(minutes=minutes, seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def server():
    with GithubServer() as server:
        server.lists = {PULLS: {}, ISSUES: {}}
        yield server


@pytest.fixture
def github(server):
    opened = []

    def make(**options):
        usual = {"token": TOKEN, "repositories": ["acme/shop"], "base_url": server.url, "poll": ["pull_requests"]}
        config = GithubConfig.model_validate({name: value for name, value in {**usual, **options}.items() if value is not None})
        plugin = Github(config)
        plugin.open()
        opened.append(plugin)
        return plugin

    yield make
    for plugin in opened:
        plugin.close()


def polled(plugin, cursor=None):
    """Poll as the engine does: the messages, and the cursor behind them."""
    messages = []
    for message, position in plugin.poll(cursor):
        cursor = position
        if message is not None:
            messages.append(message)
    return messages, cursor


def told(plugin, cursor=None):
    messages, cursor = polled(plugin, cursor)
    return [(message.key, message.labels["action"]) for message in messages], cursor


class _Contract(PollingProducerContract):
    plugin = Github

    @pytest.fixture
    def url(self, server):
        server.put(PULLS, 1, 0)
        server.put(PULLS, 2, 20, assignees=[{"login": "ann"}, {"login": "bob"}], requested_reviewers=[{"login": "eve"}])
        server.put(PULLS, 3, 20)
        server.put(ISSUES, 2, 20, pull_request={"url": "x"})
        server.put(ISSUES, 4, 5)
        server.put(ISSUES, 5, 25, state="closed", closed_at=stamp(25))
        thread = {"url": "https://api.github.com/repos/acme/shop/pulls/1", "type": "PullRequest", "title": "item 1"}
        server.lists["/notifications"] = {}
        server.put("/notifications", 7, 30, subject=thread, reason="mention", repository={"full_name": "acme/shop"})
        return server.url


class TestGithubPolled(_Contract):
    options = {
        "token": TOKEN,
        "repositories": ["acme/shop"],
        "base_url": "{url}",
        "start": "36500d",
        "poll": ["pull_requests", "issues", "notifications"],
        "per": "person",
    }
    away_options = {"token": TOKEN, "repositories": ["acme/shop"], "base_url": "http://127.0.0.1:9"}


def test_what_is_there_at_the_first_poll_is_not_told(server, github):
    for number in range(150):
        server.put(PULLS, number)
    plugin = github(poll=None)
    messages, cursor = told(plugin)
    assert messages == []
    server.put(PULLS, 12, 5)
    server.put(PULLS, 500, 6)
    server.put(ISSUES, 3, 7)
    messages, cursor = told(plugin, cursor)
    assert messages == [("acme/shop#12", "opened"), ("acme/shop#500", "opened"), ("acme/shop#3", "opened")]
    assert told(plugin, cursor)[0] == []


def test_the_first_thing_ever_is_told(server, github):
    plugin = github()
    messages, cursor = told(plugin)
    server.put(PULLS, 1)
    assert (messages, told(plugin, cursor)[0]) == ([], [("acme/shop#1", "opened")])


def test_what_became_of_it(server, github):
    server.put(PULLS, 1, base={"ref": "main"}, head={"label": "monalisa:fix", "ref": "fix", "sha": "1"}, body="Why")
    plugin = github(**LONG_AGO)
    (opened,), cursor = polled(plugin)
    assert opened.title == "monalisa opened pull request acme/shop#1: item 1"
    assert (opened.text, opened.url) == ("Why\nmonalisa:fix → main", "https://github.com/acme/shop/pull/1")
    assert (opened.type, opened.source, opened.status) == ("pull_request", "https://github.com", "firing")
    server.put(PULLS, 1, 60)
    (updated,), cursor = polled(plugin, cursor)
    assert updated.title == "Pull request acme/shop#1 was updated: item 1"
    server.put(PULLS, 1, 90, state="closed", closed_at=stamp(90), merged_at=stamp(90))
    (merged,), cursor = polled(plugin, cursor)
    assert (merged.title, merged.status, merged.key) == ("Pull request acme/shop#1 was merged: item 1", "resolved", opened.key)
    server.put(PULLS, 1, 180)
    (later,), _ = polled(plugin, cursor)
    assert (later.title, later.status) == ("Pull request acme/shop#1 was updated: item 1", "resolved")


def test_pages_are_followed_and_told_in_the_order_of_the_changes(server, github):
    for number in range(250):
        server.put(PULLS, number, minutes=number)
    messages, cursor = told(github(**LONG_AGO))
    assert [key for key, _ in messages] == [f"acme/shop#{number}" for number in range(250)]
    assert told(github(**LONG_AGO), cursor)[0] == []


def test_a_list_that_never_rests_is_told_as_far_as_it_was_seen_and_read_again(server, github):
    for number in range(150):
        server.put(PULLS, number, minutes=number)
    numbers = iter(range(1000, 2000))
    server.before_each_second_page = lambda: server.put(PULLS, next(numbers), minutes=300)
    plugin = github(**LONG_AGO)
    first, cursor = polled(plugin)
    server.before_each_second_page = lambda: None
    second, cursor = polled(plugin, cursor)
    told_of = [message.key for message in (*first, *second)]
    assert sorted(told_of) == sorted(f"acme/shop#{number}" for number in server.lists[PULLS])
    assert polled(plugin, cursor)[0] == []


@pytest.mark.parametrize("path", [PULLS, ISSUES])
def test_what_moves_while_pages_are_read_is_not_lost(server, github, path):
    for number in range(350):
        server.put(path, number, minutes=number)

    def change():
        server.lists[path].pop(340)  # a later page begins with what would have ended an earlier one
        server.put(path, 20, minutes=400)

    server.before_page = {2: change, 3: lambda: server.lists[path].pop(339), 4: lambda: server.put(path, 5, minutes=401)}
    poll = ["pull_requests" if path == PULLS else "issues"]
    messages, cursor = polled(github(poll=poll, **LONG_AGO))
    found = {(message.key, message.time) for message in messages}
    there = server.lists[path].values()
    assert {(f"acme/shop#{item['number']}", datetime.fromisoformat(item["updated_at"])) for item in there} <= found
    assert len(found) == len(messages)
    assert told(github(poll=poll), cursor)[0] == []


def test_a_change_that_is_shown_late_and_one_in_the_same_second_are_told(server, github):
    server.put(PULLS, 1, 10)
    plugin = github(**LONG_AGO)
    _, cursor = polled(plugin)
    server.put(PULLS, 2, 9)  # it came before, and is seen only now
    server.put(PULLS, 1, 10, title="another title")  # in the second in which it was seen
    messages, cursor = polled(plugin, cursor)
    assert [message.key for message in messages] == ["acme/shop#2", "acme/shop#1"]
    assert messages[1].title.endswith("another title")
    assert told(plugin, cursor)[0] == []


def test_a_list_that_is_as_it_was_costs_nothing(server, github):
    server.put(PULLS, 1)
    plugin = github(**LONG_AGO)
    _, cursor = polled(plugin)
    counted = server.counted
    for _ in range(3):
        messages, cursor = told(plugin, cursor)
        assert messages == []
    assert server.counted == counted
    assert "if-none-match" in server.received[-1].headers
    server.put(PULLS, 2, 5)
    assert told(plugin, cursor)[0] == [("acme/shop#2", "opened")]


def test_a_limit_is_kept_to(server, github):
    server.put(PULLS, 1)
    server.remaining = 0
    plugin = github(**LONG_AGO)
    with pytest.raises(TemporaryError, match="limits how much") as caught:
        polled(plugin)
    assert 1700 < caught.value.retry_after <= 1800
    asked = len(server.received)
    server.remaining = 5000
    with pytest.raises(TemporaryError) as caught:
        polled(plugin)
    assert caught.value.retry_after > 1700
    assert len(server.received) == asked, "it was asked although it wanted to be left alone"
    assert told(github(**LONG_AGO))[0] == [("acme/shop#1", "opened")]


def test_a_limit_without_a_time_is_a_minute(server, github):
    server.secondary = True
    with pytest.raises(TemporaryError, match="secondary") as caught:
        polled(github())
    assert caught.value.retry_after == 60


def test_a_limit_amid_a_poll_loses_nothing(server, github):
    server.put(PULLS, 1)
    server.put(ISSUES, 2)
    server.remaining = 1
    plugin = github(poll=None, **LONG_AGO)
    messages, cursor = told(plugin)
    assert messages == [("acme/shop#1", "opened")]
    server.remaining = 5000
    assert told(github(poll=None, **LONG_AGO), cursor)[0] == [("acme/shop#2", "opened")]


def test_a_repository_that_cannot_be_read_keeps_no_other_from_being_told(server, github):
    plugin = github(repositories=["acme/gone", "acme/shop"])
    with capture_logs() as logs:
        messages, cursor = told(plugin)
    assert messages == []
    assert [(line["list"], "404" in line["error"]) for line in logs] == [("pull_requests of acme/gone", True)]
    with pytest.raises(PermanentError, match=r"pull_requests of acme/gone: .*404"):
        polled(plugin, cursor)
    server.put(PULLS, 1)
    messages, cursor = told(plugin, cursor)
    assert messages == [("acme/shop#1", "opened")]
    server.lists["/repos/acme/gone/pulls"] = {}
    _, cursor = polled(plugin, cursor)
    server.put("/repos/acme/gone/pulls", 9)
    assert told(plugin, cursor)[0] == [("acme/gone#9", "opened")]


@pytest.mark.parametrize(
    ("answer", "error", "told_of"),
    [
        (Answer(401, body=b'{"message": "Bad credentials"}'), PermanentError, "token"),
        (Answer(403, body=b'{"message": "Resource not accessible"}'), PermanentError, "Resource not accessible"),
        (Answer(301, {"Location": "/repositories/1"}), PermanentError, "renamed"),
        (Answer(502, body=b"<html>"), TemporaryError, "502"),
        (Answer(429, {"Retry-After": "7"}), TemporaryError, "limits"),
        (Answer(429, {"Retry-After": "soon"}), TemporaryError, "429"),
        (
            Answer(403, dict.fromkeys(("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"), "x")),
            PermanentError,
            "403",
        ),
        (Answer(200, {"Content-Type": "application/json"}, b"[{"), TemporaryError, "not JSON"),
        (Answer(200, {"Content-Type": "text/html"}, b"<html>"), PermanentError, "a list is expected"),
        (Answer(200, {"Content-Type": "application/json"}, b"{}"), PermanentError, "a list is expected"),
        (Answer(fault="cut"), TemporaryError, "broke off"),
        (Answer(fault="close"), TemporaryError, "GET http"),
    ],
)
def test_answers_that_are_no_list(answer, error, told_of):
    with LoopbackServer() as server:
        server.answer = answer
        plugin = Github(GithubConfig(token=TOKEN, repositories=["acme/shop"], base_url=server.url))
        plugin.open()
        with pytest.raises(error, match=told_of) as caught:
            polled(plugin)
        plugin.close()
    assert TOKEN not in str(caught.value)


def test_items_that_are_none_are_no_bug(github):
    odd = {"id": "x", "updated_at": 5, "html_url": None, "user": [], "labels": "x", "closed_at": "soon", "created_at": 7}
    items = [{}, odd, {"id": 3, "updated_at": "soon", "html_url": 9, "assignees": [None]}, 5, None, "x"]
    with LoopbackServer() as server:
        server.answer = Answer(200, {"Content-Type": "application/json"}, json.dumps(items).encode())
        for options in ({}, {"remind": True, "per": "person"}, {"poll": ["notifications"], "repositories": []}):
            messages, _ = polled(github(base_url=server.url, start="36500d", **{"poll": ["pull_requests", "issues"], **options}))
            assert all(message.title and message.text for message in messages)
            assert messages


def test_a_certificate_of_nobody(github, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")
    for name in ("missing.pem", "ca.pem"):
        with pytest.raises(ConfigError, match="ca_file holds no certificates"):
            github(ca_file=tmp_path / name)


def test_the_token_goes_to_no_other_server(server, github):
    with LoopbackServer() as other:
        link = {"Content-Type": "application/json", "Link": f'<{other.url}/x>; rel="next"'}
        with LoopbackServer() as ours:
            ours.answer = Answer(200, link, b"[]")
            with pytest.raises(PermanentError, match="another server"):
                polled(github(base_url=ours.url, **LONG_AGO))
        assert other.received == []


def test_all_that_is_open_is_told_at_each_poll(server, github):
    for number in range(120):
        server.put(PULLS, number, minutes=number)
    server.put(PULLS, 7, 200, state="closed")
    plugin = github(remind=True)
    first, cursor = polled(plugin)
    assert len(first) == 119
    assert first[0].title == "Pull request acme/shop#0 of monalisa is open since 2026-11-20: item 0"
    assert {message.status for message in first} == {"firing"}
    second, cursor = polled(plugin, cursor)
    assert [message.key for message in second] == [message.key for message in first]
    assert {message.id for message in first}.isdisjoint(message.id for message in second)
    again, _ = polled(plugin, cursor)
    assert [message.id for message in polled(plugin, cursor)[0]] == [message.id for message in again]


def test_a_reminder_for_each_person(server, github):
    server.put(PULLS, 1, assignees=[{"login": "ann"}], requested_reviewers=[{"login": "bob"}], requested_teams=[{"slug": "db"}])
    server.put(PULLS, 2)
    messages, _ = polled(github(remind=True, per="person"))
    assert [(message.key, message.labels.get("person")) for message in messages] == [
        ("acme/shop#1/ann", "ann"),
        ("acme/shop#1/bob", "bob"),
        ("acme/shop#1/acme/db", "acme/db"),
        ("acme/shop#2", None),
    ]


def notified(server, number, minutes, **fields):
    kind = fields.pop("kind", "PullRequest")
    subject = {"url": f"https://api.github.com/repos/acme/shop/pulls/{number}", "type": kind, "title": "Fix the login"}
    repository = {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"}
    usual = {"subject": subject, "repository": repository, "reason": "review_requested", "unread": True}
    server.lists.setdefault("/notifications", {})
    server.put("/notifications", number, minutes, **{**usual, **fields})


def test_notifications(server, github):
    notified(server, 12, 1)
    notified(server, 13, 2, repository={"full_name": "acme/other"})
    options = {"poll": ["notifications"], **LONG_AGO}
    messages, _ = polled(github(**options, repositories=[]))
    assert len(messages) == 2
    (message,), cursor = polled(github(**options))
    assert message.title == "Pull request acme/shop#12 waits for your review: Fix the login"
    assert (message.type, message.key, message.url) == ("notification", "acme/shop#12", "https://github.com/acme/shop/pull/12")
    assert message.time == START + timedelta(minutes=1)
    assert message.labels == {
        "repository": "acme/shop",
        "action": "review_requested",
        "reason": "review_requested",
        "subject": "PullRequest",
    }
    server.lists["/notifications"][12]["unread"] = False  # it was read, which is no news
    assert told(github(**options), cursor)[0] == []
    notified(server, 14, 3, kind="CheckSuite", reason="ci_activity")
    (run,), _ = polled(github(**options), cursor)
    assert run.title == "Check suite acme/shop ended: Fix the login"
    assert (run.key, run.url) == ("acme/shop/notifications/1014", "https://github.com/acme/shop")


@pytest.mark.parametrize("interval", ["3600", "1e999"])
def test_notifications_are_not_asked_for_more_often_than_github_wants(server, github, interval):
    notified(server, 12, 1)
    server.poll_interval = interval
    plugin = github(poll=["notifications"], **LONG_AGO)
    messages, cursor = polled(plugin)
    assert len(messages) == 1
    asked = len(server.received)
    assert told(plugin, cursor)[0] == []
    assert len(server.received) == asked


@pytest.fixture(scope="module")
def key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_an_app_asks_as_its_installation(server, github, key):
    server.app_key = key.public_key()
    server.installations = {"acme": 77}
    form = serialization.PrivateFormat.TraditionalOpenSSL
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    server.put(PULLS, 1)
    app = {"id": 12345, "private_key": pem}
    plugin = github(token=None, app=app, poll=None, **LONG_AGO)
    messages, cursor = told(plugin)
    assert messages == [("acme/shop#1", "opened")]
    assert told(plugin, cursor)[0] == []
    assert server.made_tokens == 1
    server.tokens.clear()  # they were revoked
    with pytest.raises(PermanentError, match="401"):
        polled(plugin, cursor)
    assert told(plugin, cursor)[0] == []
    assert server.made_tokens == 2
    assert plugin.probe() == "GitHub, as bell"
    given = github(token=None, app={**app, "private_key": pem.replace("\n", "\\n"), "installation": 77}, **LONG_AGO)
    assert told(given)[0] == [("acme/shop#1", "opened")]
    with pytest.raises(PermanentError, match="401"):
        polled(github(token=None, app={**app, "id": 9}))
    with pytest.raises(PermanentError, match=r"app\.private_key"):
        polled(github(token=None, app={**app, "private_key": "not a key"}))


def test_a_probe_says_who_asks(server, github):
    assert github().probe() == "GitHub, as monalisa"
    with pytest.raises(PermanentError, match="401"):
        github(token="another-token").probe()
    assert [request.method for request in server.received] == ["GET", "GET"]


class Queued:
    """Keeps batches until they are run, as they are written for a queue."""

    largest = sys.maxsize

    def __init__(self):
        self.batches = []

    def publish(self, batches):
        self.batches += [encode(batch) for batch in batches]


def test_the_reminders_of_the_manual_reach_each_person(server, tmp_path):
    server.put(PULLS, 1, draft=False, assignees=[{"login": "ann"}], requested_reviewers=[{"login": "bob"}])
    server.put(PULLS, 2, draft=True, assignees=[{"login": "ann"}])
    server.put(PULLS, 3, draft=False)
    text = re.findall(r"```yaml\n(.*?)```", manual.__doc__, re.DOTALL)[2]
    text = text.replace("remind: true", f"base_url: {server.url}, remind: true").replace(
        "- log", f"- file: {tmp_path}/told.jsonl"
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "reminders.yaml").write_text(text)
    settings, queue = Settings(data=tmp_path), Queued()
    runner = make_runner(settings, load([tmp_path / "configs"], environ={"GITHUB_TOKEN": TOKEN}), queue)
    runner.store.migrate()
    assert [runner.poll(runner.pipelines["reminders"], "github") for _ in range(2)] == [4, 4]
    while queue.batches:
        runner.run_text(queue.batches.pop(0))
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    assert [message["labels"].get("person") for message in told] == ["ann", "bob", None] * 2
    runner.pipelines.close()
    runner.store.close()
