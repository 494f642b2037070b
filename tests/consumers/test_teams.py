"""Teams: against a stand-in of workflows and of connectors that holds cards to the schema, the limits and the answers of both."""

from __future__ import annotations

import html
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError

from consumers.teams import Teams, TeamsConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.testing import Answer, HttpConsumerContract, LoopbackServer
from pipeline.testing.consumers import deliver

pytestmark = pytest.mark.against("consumer teams", "a server of our own that holds cards to the schema of adaptive cards")

SIGNED = "/workflows/b840a6/triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers%2Fmanual%2Frun&sig=a-very-secret-one"
CONNECTOR = "/webhookb2/1@2/IncomingWebhook/a-very-secret-one/3"
TIME = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


class TestTeamsThroughAWorkflow(HttpConsumerContract):
    plugin = Teams
    options = {"url": "{url}" + SIGNED}


class TestTeamsThroughAConnector(HttpConsumerContract):
    plugin = Teams
    options = {"url": "{url}" + CONNECTOR}
    good_body = b"1"


class RefusedError(Exception):
    """What is wrong with a card."""


class TeamsServer(LoopbackServer):
    """What Teams does with cards, as far as a sender can tell: a workflow answers 202, a connector 200 in any case."""

    def __init__(self):
        super().__init__()
        self.cards = []

    def next_answer(self, request):
        self.received.append(request)
        if self.answers:
            return self.answers.popleft()
        try:
            card = check_body(request)
        except RefusedError as error:
            if request.path == CONNECTOR:
                return failed(400, str(error))
            return workflow_error(400, "TriggerInputSchemaMismatch", str(error))
        if request.path not in (SIGNED, CONNECTOR):
            return workflow_error(
                401, "DirectApiAuthorizationRequired", "The request must be authenticated only by Shared Access scheme."
            )
        self.cards.append(card)
        return Answer(200, body=b"1") if request.path == CONNECTOR else Answer(202)


def failed(status, text=""):
    told = f"Microsoft Teams endpoint returned HTTP error {status} with ContextId tcid=0,{text}"
    return Answer(200, body=f"Webhook message delivery failed with error: {told}".encode())


def workflow_error(status, code, text):
    return Answer(status, body=json.dumps({"error": {"code": code, "message": text}}).encode())


LOOK = {"size": {"Small", "Large"}, "weight": {"Bolder"}, "isSubtle": {True}}
ELEMENTS = {
    "Container": {"style", "bleed", "items"},
    "RichTextBlock": {"inlines"},
    "TextRun": {"text", "selectAction", *LOOK},
    "TextBlock": {"text", "wrap"},
    "FactSet": {"facts"},
    "Action.OpenUrl": {"title", "url"},
}


def check_body(request):
    require(request.headers["content-type"] == "application/json; charset=utf-8", "charset")
    require(len(request.body) <= 21_000, "413")  # 28 kB are said, less was refused: https://rubydoc.info/gems/msteams_hermes
    return check_envelope(json.loads(request.body))


def check_envelope(envelope):
    require(None not in every(envelope), "null")
    require(envelope.keys() == {"type", "attachments"} and envelope["type"] == "message", "envelope")
    (attachment,) = envelope["attachments"]
    require(attachment.keys() == {"contentType", "content"}, "attachment")
    require(attachment["contentType"] == "application/vnd.microsoft.card.adaptive", "contentType")
    card = attachment["content"]
    require(not card.keys() - {"$schema", "type", "version", "msteams", "body", "actions"}, "card")
    require((card["type"], card["version"]) == ("AdaptiveCard", "1.4"), "card")
    for element in [*card["body"], *card.get("actions", ())]:
        check_element(element)
    texts = [element["text"] for element in card["body"] if element["type"] == "TextBlock"]
    for entity in card["msteams"].get("entities", ()):
        require(entity["type"] == "mention" and entity["mentioned"].keys() == {"id", "name"}, "entity")
        require(any(entity["text"] in text for text in texts), "a mention stands nowhere")
    return card


def check_element(element):
    """Hold an element to https://adaptivecards.io/explorer/, version 1.4, as far as the plugin may use it."""
    kind = element["type"]
    require(kind in ELEMENTS and not element.keys() - {"type"} - ELEMENTS[kind], f"{kind} {element.keys()}")
    require(all(element[name] in allowed for name, allowed in LOOK.items() if name in element), "look")
    if kind == "Container":
        require(element["style"] in ("default", "emphasis", "good", "attention", "warning", "accent"), "style")
    if kind in ("Container", "RichTextBlock"):
        require(element["items" if kind == "Container" else "inlines"], "empty")
    if kind in ("TextRun", "TextBlock"):
        require(element["text"], "empty")
    if kind == "Action.OpenUrl":
        require(re.fullmatch(r"https?://[!-~]+", element["url"]), "url")
    if kind == "FactSet":
        require(all(fact.keys() == {"title", "value"} and fact["title"] and fact["value"] for fact in element["facts"]), "fact")
    for inner in [*element.get("items", ()), *element.get("inlines", ()), *filter(None, [element.get("selectAction")])]:
        check_element({"title": "x"} | inner if "selectAction" in element else inner)


def every(value):
    inner = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for part in inner for one in every(part)] if inner else [value]


def require(condition, text):
    if not condition:
        raise RefusedError(text)


@pytest.fixture(scope="module")
def server():
    with TeamsServer() as made:
        yield made


@pytest.fixture
def teams(server):
    for kept in (server.cards, server.received, server.answers):
        kept.clear()

    def make(path=SIGNED, **options):
        return Teams(TeamsConfig.model_validate({"url": server.url + path} | options))

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
    return Message(**known | {"labels": {"team": "db"}, "url": "http://p/graph?a=1"} | fields)


def runs(element):
    return "".join(run["text"] for run in element["inlines"])


@pytest.mark.parametrize("path", [SIGNED, CONNECTOR])
def test_a_message_as_a_card_in_its_colour(teams, server, path):
    deliver(teams(path), alert(text="2 % *left*\nof 100"))
    (card,) = server.cards
    title, text, facts, origin = card["body"]
    assert (title["style"], runs(title["items"][0])) == ("attention", "disk full")
    assert text == {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "2 % *left*\nof 100"}]}
    assert facts == {"type": "FactSet", "facts": [{"title": "team", "value": "db"}]}
    assert runs(origin) == "critical · http://prometheus · {{DATE(2026-11-21T08:30:00Z,SHORT)}} {{TIME(2026-11-21T08:30:00Z)}}"
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Open", "url": "http://p/graph?a=1"}]
    assert card["msteams"] == {"width": "Full"}


@pytest.mark.parametrize(
    ("fields", "style"),
    [
        ({"severity": "critical", "status": "resolved"}, "good"),
        ({"severity": "error"}, "attention"),
        ({"severity": "warning"}, "warning"),
        ({"severity": "info"}, "accent"),
        ({"severity": "debug"}, "emphasis"),
        ({"severity": "blocker"}, "emphasis"),
        ({"severity": ""}, "emphasis"),
    ],
)
def test_the_title_has_the_colour_of_the_severity(teams, server, fields, style):
    deliver(teams(), alert(**fields))
    assert server.cards[0]["body"][0]["style"] == style


def test_an_own_text_labels_mentions_and_button(teams, server):
    plugin = teams(
        text="**{{ labels.team }}** {{ text }}",
        labels=["env", "team"],
        mention='{% if severity == "critical" %}ada@example.com, bob@example.com{% endif %}',
        button="Show",
    )
    deliver(plugin, alert(labels={"team": "db", "noise": "x"}))
    deliver(plugin, alert(severity="info", url="javascript:x"))
    first, second = server.cards
    assert first["body"][1] == {"type": "TextBlock", "text": "**db** 2 % left", "wrap": True}
    assert first["body"][2]["facts"] == [{"title": "team", "value": "db"}]
    assert first["body"][-1]["text"] == "<at>ada@example.com</at> <at>bob@example.com</at>"
    assert [entity["mentioned"]["id"] for entity in first["msteams"]["entities"]] == ["ada@example.com", "bob@example.com"]
    assert first["actions"][0]["title"] == "Show"
    assert "entities" not in second["msteams"]
    assert "actions" not in second


def test_urls_in_the_text_can_be_followed(teams, server):
    deliver(teams(), alert(text="see https://wiki.example/disk_full?a=1&b=(2). Or http://x"))
    linked = [(run["text"], run.get("selectAction", {}).get("url")) for run in server.cards[0]["body"][1]["inlines"]]
    assert linked == [
        ("see ", None),
        ("https://wiki.example/disk_full?a=1&b=(2", "https://wiki.example/disk_full?a=1&b=(2"),
        ("). Or ", None),
        ("http://x", "http://x"),
    ]


def facts(teams_config, labels):
    body = json.loads(Teams(teams_config).request(alert(labels=labels)).body)
    return next(element for element in check_envelope(body)["body"] if element["type"] == "FactSet")["facts"]


CONFIG = TeamsConfig(url="https://x.example/y")


@settings(deadline=None)
@given(st.text(st.sampled_from("ab_*`~[](){}\\1.-+#>!<& :/;"), min_size=1, max_size=30).filter(str.strip))
@example("1. one")
@example("&lt; &#33; -5")
@example("<http://a>")
@example("---")
@example("- one")
@example("a_b_c _d_ 1) x")
@example("[a](http://b)")
def test_a_fact_is_shown_as_it_is_whatever_markdown_it_looks_like(value):
    ((fact,),) = [facts(CONFIG, {"a": value})]
    shown = MarkdownIt("commonmark", {"html": False}).render(fact["value"])
    assert re.fullmatch(r"<p>[^\n]*</p>\n", shown), shown
    assert html.unescape(shown[3:-5]).split() == value.split()


def failure(plugin, kind):
    with pytest.raises(kind) as caught:
        deliver(plugin, alert())
    assert "very-secret" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_connector_that_answers_200_may_mean_later(teams, server, status):
    server.answers.append(failed(status))
    assert f"answered {status}" in str(failure(teams(CONNECTOR), TemporaryError))


@pytest.mark.parametrize("status", [400, 403, 404, 413])
def test_a_connector_that_answers_200_may_mean_never(teams, server, status):
    server.answers.append(failed(status))
    assert f"answered {status}" in str(failure(teams(CONNECTOR), PermanentError))


@pytest.mark.parametrize(
    "text",
    [
        "Webhook message delivery failed with error: Error contacting Microsoft Teams endpoint",
        "System.Net.Http.HttpRequestException: Error while copying content to a stream.",
        "Request was throttled",
    ],
)
def test_a_connector_that_answers_200_and_an_error_without_a_number_is_tried_again(teams, server, text):
    server.answers.append(Answer(200, body=text.encode()))
    assert text[:30] in str(failure(teams(CONNECTOR), TemporaryError))


@pytest.mark.parametrize("body", [b"1", b"", b'{"ok": true}', b"posted"])
def test_any_other_text_of_a_200_is_success(teams, server, body):
    server.answers.append(Answer(200, body=body))
    deliver(teams(CONNECTOR), alert())


def test_a_wait_that_is_asked_for_is_kept(teams, server):
    server.answers.append(Answer(429, {"Retry-After": "17"}, b'{"error": {"code": "TooManyRequests"}}'))
    assert failure(teams(), TemporaryError).retry_after == 17


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (400, "WorkflowTriggerIsNotEnabled", "switch it on"),
        (404, "WorkflowNotFound", "make a new one"),
        (400, "InvalidTemplate", "InvalidTemplate"),
    ],
)
def test_what_a_workflow_refuses_is_buried_with_advice(teams, server, status, code, advice):
    server.answers.append(workflow_error(status, code, "Could not execute workflow"))
    assert advice in str(failure(teams(), PermanentError))


def test_a_url_without_its_signature_is_told(teams):
    assert "the whole URL" in str(failure(teams(SIGNED.partition("&sig")[0]), PermanentError))


@pytest.mark.parametrize(
    "text", ["a line of 24 characters\n" * 4_000, '"\\\n' * 10_000, "😀" * 9_000, "https://x.example/" + "a" * 30_000]
)
def test_what_is_too_long_is_cut_with_a_mark(teams, server, text):
    labels = {f"label-{number}": "v" * 3_000 for number in range(40)}
    deliver(teams(), alert(title="t" * 5_000, text=text, labels=labels, source="s" * 5_000))
    title, shown, facts, origin = server.cards[0]["body"]
    assert runs(title["items"][0]).endswith("…")
    assert runs(shown).endswith("…")
    assert len(server.received[0].body) > 18_000 or text.startswith("https:")
    assert len(facts["facts"]) == 25
    assert "15 more labels" in runs(origin)


def test_facts_that_take_much_room_are_counted(teams, server):
    deliver(teams(), alert(labels={f"{number}": "😀" * 300 for number in range(25)}))
    assert re.search(r"1\d more labels", runs(server.cards[0]["body"][-1]))


TEXTS = st.text(st.sampled_from("ab_*\\`<>#- \n|😀ü…\x00\x1bhttps://x.y"), max_size=40) | st.text(max_size=40)


@settings(deadline=None)
@given(title=TEXTS, text=TEXTS, factor=st.integers(1, 2_000), labels=st.dictionaries(TEXTS, TEXTS, max_size=30), url=TEXTS)
def test_whatever_a_message_holds_teams_takes_it(title, text, factor, labels, url):
    message = alert(title=title * factor, text=text * factor, labels=labels, url=f"https://x.example/{url}", source=title)
    body = Teams(CONFIG).request(message).body
    assert len(body) <= 20_000
    check_envelope(json.loads(body))


@pytest.mark.parametrize(
    "options", [{"url": "x.example/y"}, {"url": ""}, {"button": ""}, {"text": "{{ titel }}"}, {"thread": "1"}]
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ValidationError):
        TeamsConfig.model_validate({"url": "https://x.example/y"} | options)
