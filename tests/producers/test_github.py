"""GitHub's webhooks: who may post, what is wanted, repeats, and what stands in a message."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import PermanentError, Request, RequestError
from pipeline.engine.dryrun import dry_run
from pipeline.spec.loader import load
from pipeline.testing import WebhookProducerContract
from producers import github
from producers.github import Github, GithubConfig, options
from producers.github.writing import EVENTS

SECRET = "the-webhook's-secret"
DELIVERY = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
REPOSITORY = {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop", "owner": {"login": "acme"}}
PULL = {
    "number": 12,
    "title": "Fix the login",
    "state": "open",
    "body": "<!-- Say why. -->It failed.\r\n\r\n\r\n\r\nNow it does not.",
    "html_url": "https://github.com/acme/shop/pull/12",
    "updated_at": "2026-11-21T08:30:00Z",
    "user": {"login": "monalisa"},
    "head": {"label": "monalisa:login", "ref": "login"},
    "base": {"ref": "main"},
    "labels": [{"name": "bug"}, {"name": "urgent"}],
}
OPENED = {"action": "opened", "pull_request": PULL, "repository": REPOSITORY, "sender": {"login": "monalisa"}}


def signed(body, event="pull_request", delivery=DELIVERY, content_type="application/json", secret=SECRET):
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"content-type": content_type, "x-github-event": event, "x-hub-signature-256": f"sha256={signature}"}
    return Request(body, headers | ({"x-github-delivery": delivery} if delivery else {}))


def made(**options):
    plugin = Github(GithubConfig.model_validate({"secret": SECRET, **options}))
    plugin.open()
    return plugin


def receive(payload, event="pull_request", delivery=DELIVERY, **options):
    return list(made(**options).receive(signed(json.dumps(payload).encode(), event, delivery)))


def refused(request, **options):
    with pytest.raises(RequestError) as caught:
        list(made(**options).receive(request))
    return caught.value


class TestGithub(WebhookProducerContract):
    plugin = Github
    options = {"secret": SECRET}
    accepted = [json.dumps(OPENED).encode(), b"{}"]

    def request(self, body, content_type="application/json"):
        return signed(body, content_type=content_type)


def test_a_message_says_who_did_what():
    (message,) = receive(OPENED)
    assert message.title == "monalisa opened pull request acme/shop#12: Fix the login"
    assert message.text == "It failed.\n\nNow it does not.\nmonalisa:login → main"
    assert (message.type, message.key, message.url) == ("pull_request", "acme/shop#12", PULL["html_url"])
    assert (message.source, message.severity, message.status) == ("https://github.com", "info", "firing")
    assert message.time.isoformat() == "2026-11-21T08:30:00+00:00"
    assert message.labels == {
        "repository": "acme/shop",
        "action": "opened",
        "sender": "monalisa",
        "author": "monalisa",
        "branch": "main",
        "head": "login",
        "labels": "bug,urgent",
    }
    assert message.data == OPENED


def test_what_is_merged_is_resolved_whatever_is_done_to_it_later():
    merged = {**PULL, "state": "closed", "merged": True}
    (message,) = receive({**OPENED, "action": "closed", "pull_request": merged})
    assert (message.title, message.status) == ("monalisa merged pull request acme/shop#12: Fix the login", "resolved")
    (later,) = receive({**OPENED, "action": "labeled", "label": {"name": "done"}, "pull_request": merged})
    assert later.title == "monalisa put the label done on pull request acme/shop#12: Fix the login"
    assert (later.status, later.key) == ("resolved", message.key)


@pytest.mark.parametrize(
    ("event", "payload", "severity", "status", "key"),
    [
        ("workflow_run", {"conclusion": "failure"}, "error", "firing", "acme/shop@main/CI"),
        ("workflow_run", {"conclusion": "timed_out"}, "error", "firing", "acme/shop@main/CI"),
        ("workflow_run", {"conclusion": "cancelled"}, "warning", "firing", "acme/shop@main/CI"),
        ("workflow_run", {"conclusion": "success"}, "info", "resolved", "acme/shop@main/CI"),
        ("workflow_run", {"conclusion": None, "status": "in_progress"}, "info", "firing", "acme/shop@main/CI"),
    ],
)
def test_how_bad_a_run_is(event, payload, severity, status, key):
    run = {"name": "CI", "head_branch": "main", "display_title": "Fix", **payload}
    (message,) = receive({"action": "completed", event: run, "repository": REPOSITORY}, event)
    assert (message.severity, message.status, message.key) == (severity, status, key)


@pytest.mark.parametrize(
    ("event", "alert", "action", "severity", "status"),
    [
        ("dependabot_alert", {"state": "open", "security_advisory": {"severity": "critical"}}, "created", "critical", "firing"),
        ("dependabot_alert", {"state": "open", "security_advisory": {"severity": "high"}}, "created", "error", "firing"),
        ("dependabot_alert", {"state": "fixed", "security_advisory": {"severity": "high"}}, "fixed", "info", "resolved"),
        ("code_scanning_alert", {"state": "open", "rule": {"severity": "note"}}, "created", "info", "firing"),
        ("code_scanning_alert", {"state": "dismissed", "rule": {"severity": "error"}}, "closed_by_user", "info", "resolved"),
        ("repository_vulnerability_alert", {"severity": "moderate"}, "create", "warning", "firing"),
        ("secret_scanning_alert", {"state": "open"}, "created", "critical", "firing"),
        ("secret_scanning_alert", {"state": "resolved"}, "resolved", "info", "resolved"),
        ("security_advisory", {}, "withdrawn", "info", "resolved"),
    ],
)
def test_how_bad_an_alert_is(event, alert, action, severity, status):
    payload = {"action": action, "alert": {"number": 3, **alert}, "repository": REPOSITORY}
    (message,) = receive(payload, event)
    assert (message.severity, message.status) == (severity, status)
    assert message.title


def test_a_push_names_its_commits():
    commits = [
        {"id": f"{number:040x}", "message": f"step {number}\n\nMore.", "author": {"username": "zoe"}} for number in range(12)
    ]
    payload = {"ref": "refs/heads/main", "commits": commits, "head_commit": commits[-1], "compare": "https://github.com/c"}
    payload |= {"repository": REPOSITORY, "pusher": {"name": "zoe"}}
    (message,) = receive(payload, "push")
    assert message.title == "zoe pushed 12 commits to acme/shop@main: step 11"
    lines = message.text.split("\n")
    assert lines[0] == "0000000 step 0 (zoe)"
    assert lines[-2:] == ["… and 2 more", "https://github.com/c"]
    (forced,) = receive({**payload, "forced": True}, "push")
    assert (forced.severity, forced.title) == ("warning", "zoe pushed 12 commits by force to acme/shop@main: step 11")


def test_an_event_that_nobody_told_us_of_passes():
    payload = {
        "action": "thing_added",
        "new_thing": {"title": "A thing", "html_url": "https://github.com/x"},
        "sender": {"login": "o"},
    }
    (message,) = receive({**payload, "repository": REPOSITORY}, "new_thing")
    assert message.title == "o thing added new thing in acme/shop: A thing"
    assert (message.type, message.url, message.key) == ("new_thing", "https://github.com/x", "acme/shop")
    assert message.text


def test_a_form_is_as_good_as_json():
    body = urlencode({"payload": json.dumps(OPENED)}).encode()
    (message,) = made().receive(signed(body, content_type="application/x-www-form-urlencoded"))
    assert message == receive(OPENED)[0]
    error = refused(signed(b"other=1", content_type="application/x-www-form-urlencoded"))
    assert (error.status, error.problems[0].where) == (400, "payload")
    assert refused(signed(b"{}", content_type="text/xml")).status == 415


def test_a_repeated_delivery_has_the_same_id():
    assert receive(OPENED)[0].id == receive(OPENED)[0].id
    assert receive(OPENED)[0].id != receive(OPENED, delivery="another")[0].id
    assert receive(OPENED, delivery="")[0].id != receive(OPENED, delivery="")[0].id


def test_who_is_not_the_webhook_is_refused():
    body = json.dumps(OPENED).encode()
    headers = {"content-type": "application/json", "x-github-event": "pull_request"}
    assert refused(Request(body, headers)).status == 401
    assert refused(signed(body, secret="another one")).status == 403
    altered = signed(body)
    assert refused(Request(body.replace(b"12", b"13"), altered.headers)).status == 403
    assert made().verifies_sender
    open_to_keys = made(secret=None)
    assert not open_to_keys.verifies_sender
    assert len(list(open_to_keys.receive(Request(body, headers)))) == 1


@pytest.mark.parametrize("event", ["", "Pull Request", "../x", "a" * 101])
def test_an_event_without_a_name_is_refused(event):
    error = refused(signed(b"{}", event))
    assert (error.status, error.problems[0].where) == (400, "X-GitHub-Event")


def test_only_what_is_wanted():
    assert receive(OPENED, events=["issues"]) == []
    assert receive(OPENED, events=["issues", "pull_request.closed"]) == []
    assert len(receive(OPENED, events=["pull_request.opened"])) == 1
    assert len(receive(OPENED, events=["pull_request"])) == 1
    assert receive(OPENED, repositories=["acme/web"]) == []
    assert len(receive(OPENED, repositories=["Acme/Shop"])) == 1
    assert receive({"organization": {"login": "acme"}}, "organization", repositories=["acme/shop"]) == []


def test_a_body_of_very_many_spaces_holds_nobody_up():
    (message,) = receive({**OPENED, "pull_request": {**PULL, "body": f"a \t\n \t\n\nb{' ' * 500_000}c"}})
    assert message.text.startswith("a\n\nb")


def test_a_run_of_a_fork_is_not_one_of_the_branch_of_that_name_here():
    def message(home):
        run = {"name": "CI", "head_branch": "main", "conclusion": "failure", "head_repository": {"full_name": home}}
        (made,) = receive({"action": "completed", "workflow_run": run, "repository": REPOSITORY}, "workflow_run")
        return made

    ours, theirs = message("acme/shop"), message("mallory/shop")
    assert (ours.key, ours.labels["branch"]) == ("acme/shop@main/CI", "main")
    assert (theirs.key, theirs.labels["branch"]) == ("acme/shop@mallory:main/CI", "mallory:main")
    assert theirs.title == "Workflow CI on acme/shop@mallory:main failed"


def test_a_message_for_each_person():
    people = {"assignees": [{"login": "ann"}], "requested_reviewers": [{"login": "bob"}], "requested_teams": [{"slug": "db"}]}
    payload = {**OPENED, "pull_request": {**PULL, **people}}
    messages = receive(payload, per="person")
    assert [(m.labels["person"], m.labels["role"], m.key) for m in messages] == [
        ("ann", "assignee", "acme/shop#12/ann"),
        ("bob", "reviewer", "acme/shop#12/bob"),
        ("acme/db", "reviewer", "acme/shop#12/acme/db"),
    ]
    assert [m.id for m in messages] == [m.id for m in receive(payload, per="person")]
    assert len({m.id for m in messages}) == 3
    (nobodys,) = receive(OPENED, per="person")
    assert "person" not in nobodys.labels
    assert len(receive(payload)) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"events": ["pull_requests"]}, "pull_request?"),
        ({"events": ["pull_request.!"]}, "action"),
        ({"repositories": ["shop"]}, "OWNER/NAME"),
        ({"token": "a-token", "app": {"id": 1, "private_key": "x"}, "repositories": ["a/b"]}, "not both"),
        ({"token": "a-token"}, "repositories"),
        ({"app": {"id": 1, "private_key": "x"}, "repositories": ["a/b"], "poll": ["notifications"]}, "token"),
        ({"base_url": "https://user:x@github.example.com"}, "base_url"),
    ],
)
def test_options_that_do_not_fit(options, told):
    with pytest.raises(ValidationError, match=told.replace("?", "\\?")):
        GithubConfig.model_validate(options)


def test_without_a_token_there_is_nothing_to_ask():
    assert not Github.asks(GithubConfig(secret=SECRET))
    assert Github.asks(GithubConfig(token="a-token", repositories=["acme/shop"]))
    assert made().probe() is None
    with pytest.raises(PermanentError, match="token"):
        made().poll(None)


def test_what_is_posted_needs_no_extra(monkeypatch):
    script = "import sys, producers.github; sys.exit({'gidgethub', 'httpx2', 'jwt'} & {*sys.modules} != set())"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=100)
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    assert GithubConfig(secret=SECRET)
    with pytest.raises(ValidationError, match=r"siftbell\[github\]"):
        GithubConfig(token="a-token", repositories=["acme/shop"])


def test_the_pipeline_of_the_manual_tells_of_what_fails_and_of_what_is_mended(tmp_path):
    (tmp_path / "shop.yaml").write_text(re.findall(r"```yaml\n(.*?)```", github.__doc__, re.DOTALL)[0])
    spec = load([tmp_path], environ={"GITHUB_SECRET": SECRET}).pipelines["shop"]

    def sent(event, payload):
        trace = dry_run(spec, spec.producers[0], signed(json.dumps(payload).encode(), event), now=datetime.now(UTC))
        assert trace.refused is None
        return [
            (delivery.did, delivery.preview and delivery.preview["title"]) for j in trace.journeys for delivery in j.deliveries
        ]

    def run(conclusion):
        made = {"name": "CI", "head_branch": "main", "conclusion": conclusion, "display_title": "Fix"}
        return {"action": "completed", "workflow_run": made, "repository": REPOSITORY}

    assert sent("pull_request", OPENED) == [("would send", "monalisa opened pull request acme/shop#12: Fix the login")]
    assert sent("workflow_run", run("failure")) == [("would send", "Workflow CI on acme/shop@main failed: Fix")]
    assert sent("workflow_run", run("success")) == [("would send", "Workflow CI on acme/shop@main succeeded: Fix")]
    assert sent("workflow_run", run("cancelled")) == [("left out", None)]
    assert sent("star", {"action": "created", "repository": REPOSITORY}) == []


def test_rows_of_the_tables_speak_of_paths_that_can_be_filled():
    for name, event in EVENTS.items():
        for action in ("", "created", *event.verbs):
            (message,) = receive({"action": action}, name)
            assert message.title, name
            assert "{" not in f"{message.title}{message.text}{message.key}{message.url}{[*message.labels.values()]}", name
            assert "  " not in message.title


WORDS = ["", "closed", "created", "{it}", "{who}", "{title:zz}", "a\nb", "\u202e"]
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(WORDS)
FIELDS = ["action", "pull_request", "issue", "alert", "repository", "sender", "login", "full_name", "number", "title", "state"]
NAMES = st.sampled_from([*FIELDS, "user", "commits", "ref", "html_url", "labels", "updated_at"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5), max_leaves=15
)


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.sampled_from(sorted(EVENTS)))
@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck])
def test_no_payload_of_any_event_is_a_bug(payload, event):
    (message,) = receive(payload, event)
    assert message.title
    assert message.text
    assert "\n" not in message.title
