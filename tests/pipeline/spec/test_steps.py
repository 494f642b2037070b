"""Steps as they are written: what they become, and what is told of those that are wrong."""

# ruff: noqa: E501 - tables of cases read best with one case a line

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.registry import MissingExtraError, Registry
from pipeline.spec import RENDERERS, SpecError

AROUND = {
    "producers": ("producers:\n  - {}\nconsumers: [spec_toys:Batch]\n"),
    "filters": ("producers: [spec_toys:Hook]\nconsumers: [spec_toys:Batch]\nfilters:\n  - {}\n"),
    "consumers": ("producers: [spec_toys:Hook]\nconsumers:\n  - {}\n"),
}


def around(kind: str, step: str) -> str:
    return AROUND[kind].replace("{}", step.replace("\n", "\n    "), 1)


def test_all_there_is(spec) -> None:
    made = spec(
        """
name: alerts
description: To those who can mend them
producers:
  - spec_toys:Hook: {}
    as: prometheus
  - spec_toys:Poll: {url: "http://${HOST:-localhost}/x"}
    schedule: "*/5 8-18 * * MON-FRI"
    timezone: Europe/Berlin
  - spec_toys:Listen:
filters:
  - spec_toys:Only: severity == "critical"
  - spec_toys:Once: {within: 10m, by: [key]}
    when: severity != ""
    queue: slow
consumers:
  - spec_toys:ChatRoom: {token: "${file:token}", chat_id: "${CHAT}", size: "${SIZE}"}
    as: oncall
    when: severity == "critical"
    retry: {for: 1h30m}
    concurrency: 3
    queue: chat
  - spec_toys:Batch
""",
        environ={"CHAT": "-100123", "SIZE": "7"},
        secrets=Path(__file__).parent / "secrets",
    )
    assert (made.name, made.description, made.position.line) == ("alerts", "To those who can mend them", 2)
    hook, poll, listen = made.producers
    assert [step.label for step in made.producers] == ["prometheus", "poll", "listen"]
    assert (hook.plugin, hook.kind, hook.schedule, listen.schedule) == ("spec_toys:Hook", "producer", None, None)
    assert poll.config.url == "http://localhost/x"
    assert poll.schedule.after(datetime(2026, 11, 20, 17, 59, tzinfo=UTC)) == datetime(2026, 11, 23, 7, tzinfo=UTC)
    only, once = made.filters
    assert only.config.condition.text == 'severity == "critical"'
    assert (once.config.within, once.when.text, once.queue, only.queue) == (timedelta(minutes=10), 'severity != ""', "slow", None)
    chat, batch = made.consumers
    assert (chat.label, chat.queue, chat.concurrency, chat.retry.lasting) == ("oncall", "chat", 3, timedelta(minutes=90))
    assert (chat.config.token.get_secret_value(), chat.config.chat_id, chat.config.size) == ("s3cret", "-100123", 7)
    assert (batch.label, batch.queue, batch.concurrency, batch.retry.lasting) == ("batch", "batch", 50, timedelta(hours=6))
    assert str(chat.position).endswith("p.yaml:17:5")
    assert type(chat.build()).__name__ == "ChatRoom"


def test_queue_is_a_plugin_where_options_stand_under_it_and_a_key_where_it_has_a_value(spec) -> None:
    made = spec(
        """
producers:
  - queue: {url: "amqp://h", queue: raw}
  - queue: {url: "redis://h", list: raw}
    as: from-list
consumers:
  - queue: {url: "amqp://h", exchange: out}
    when: severity == "critical"
  - spec_toys:Batch:
    queue: slow
"""
    )
    assert [(step.plugin, step.label, step.config.queue) for step in made.producers] == [
        ("queue", "queue", "raw"),
        ("queue", "from-list", ""),
    ]
    assert [(step.plugin, step.queue) for step in made.consumers] == [("queue", "queue"), ("spec_toys:Batch", "slow")]


@pytest.mark.parametrize(
    ("kind", "step", "problem"),
    [
        ("producers", "- queue", "producer queue.url: required"),
        ("consumers", "- queue:", "consumer queue.url: required"),
        ("consumers", "- queue: slow", "this step names no consumer"),
        ("consumers", "- {queue: {url: 'amqp://h', exchange: e}, spec_toys:Batch: {}}", "two consumers in one step"),
        ("filters", "- {spec_toys:Once: {within: 1m}, queue: {a: b}}", "queue: "),
        ("producers", "- {spec_toys:Hook: {}, queue: slow}", "'queue' belongs to filters and consumers, not to a producer"),
        ("consumers", "- {spec_toys:Batch: {}, queue: }", "queue: a value is missing"),
    ],
)
def test_what_is_told_of_queue(told, kind: str, step: str, problem: str) -> None:
    (line,) = told(around(kind, step.removeprefix("- ")))
    assert problem in line


def test_inactive_steps_are_left_out_and_keep_their_labels(spec) -> None:
    made = spec(
        """
producers: [spec_toys:Hook]
filters:
  - spec_toys:Once: {within: 1m}
    active: ${ON:-false}
  - spec_toys:Once: {within: 2m}
consumers:
  - spec_toys:Batch
  - spec_toys:ChatRoom: {token: x, chat_id: 1}
    active: false
"""
    )
    assert [step.label for step in made.filters] == ["once-2"]
    assert [step.label for step in made.consumers] == ["batch"]


def test_filters_are_numbered_around_the_labels_of_others(spec) -> None:
    made = spec(
        """
producers: [spec_toys:Hook]
filters:
  - spec_toys:Only: severity == "a"
  - spec_toys:Only: severity == "b"
  - spec_toys:Only: severity == "c"
    as: only-3
  - spec_toys:Only: severity == "d"
consumers:
  - spec_toys:Batch:
    as: only
"""
    )
    assert [step.label for step in made.filters] == ["only-2", "only-4", "only-3", "only-5"]


def test_a_class_is_labelled_in_kebab_case(spec) -> None:
    made = spec("producers: [spec_toys:Hook]\nconsumers:\n  - spec_toys:ChatRoom: {token: x, chat_id: 1}\n")
    assert [step.label for step in made.consumers] == ["chat-room"]


@pytest.mark.parametrize(
    ("kind", "step", "problems"),
    [
        ("producers", "promethus", ["2:5 no producer is called 'promethus' | did you mean 'prometheus'?"]),
        ("producers", "telegram: {}", ["2:5 'telegram' is a consumer, not a producer"]),
        ("producers", "{}", ["2:5 a step is the name of a producer and its options | such as '- name: {option: value}'"]),
        ("producers", "5", ["2:5 a step is the name of a producer and its options | such as '- name: {option: value}'"]),
        ("producers", "[spec_toys:Hook]", ["2:5 a step is the name of a producer and its options | such as '- name: {option: value}'"]),
        ("producers", "as: x", ["2:5 this step names no producer | such as '- name: {option: value}'"]),
        ("producers", "${NOPE}", ["2:5 the environment variable NOPE is not set | set it, or give a default: ${NOPE:-…}"]),
        ("producers", "spec_toys:Hook: 5", ["2:21 producer spec_toys:Hook: a mapping of options is expected | such as 'spec_toys:Hook: {option: value}'"]),
        ("producers", "spec_toys:Hook: {x: 1}", ["2:22 producer spec_toys:Hook has no option 'x' | it has none"]),
        ("producers", "spec_toys:Hook:\nschedule: 30s", ["3:5 producer spec_toys:Hook has no schedule: messages are posted to it | remove this line"]),
        ("producers", "spec_toys:Listen:\nschedule: 30s", ["3:5 producer spec_toys:Listen has no schedule: it listens all the time | remove this line"]),
        ("producers", "spec_toys:Poll:\ntimezone: UTC", ["3:5 'timezone' stands beside a 'schedule' | add one, or remove this line"]),
        ("producers", "spec_toys:Poll:\nschedule: 30s\ntimezone: Berlin", ["4:15 timezone: a time zone such as Europe/Berlin or UTC is expected"]),
        ("producers", "spec_toys:Poll:\nschedule: 61 * * * *", ["3:15 schedule: bad minute; a cron line is minute, hour, day of month, month and day of week"]),
        ("producers", "spec_toys:Hook:\nwhen: x", ["3:5 'when' belongs to filters and consumers, not to a producer"]),
        ("producers", "spec_toys:Hook:\nas: Upper", ["3:9 as: lower-case letters, digits, '-' and '_' are expected, at most 63"]),
        ("producers", "spec_toys:Hook:\nas:", ["3:5 as: a value is missing"]),
        ("producers", "spec_toys:Hook:\nactive: maybe", ["3:13 active: true or false is expected"]),
        ("producers", "spec_toys:Hook:\nordered: true", ["3:5 'ordered' belongs to consumers, not to a producer"]),
        ("producers", "spec_toys:Hook:\nspec_toys:Poll:", ["3:5 two producers in one step: 'spec_toys:Hook' and 'spec_toys:Poll' | begin each step with '- '"]),
        ("producers", "use: x", ["2:10 no shared producer is called 'x' | siftbell.yaml declares none"]),
        ("producers", "use: [x]", ["2:10 use: the name of a shared producer is expected"]),
        ("producers", "use: ${NOPE}", ["2:10 the environment variable NOPE is not set | set it, or give a default: ${NOPE:-…}"]),
        ("producers", "spec_toys:Hook: {}\nwen: {}", ["3:5 a producer's step has no key 'wen' | there are as, active, schedule, timezone"]),
        ("filters", "spec_toys:Once: {within: 5}", ["4:30 filter spec_toys:Once.within: a duration such as 500ms, 30s, 5m, 1h30m or 7d is expected"]),
        ("filters", "spec_toys:Once: {witin: 5m}", ["4:22 filter spec_toys:Once has no option 'witin' | did you mean 'within'?"]),
        ("filters", "spec_toys:Once:", ["4:5 filter spec_toys:Once.within: required"]),
        ("filters", "spec_toys:Once: {within: 5m, by: [1, x]}", ["4:39 filter spec_toys:Once.by[0]: a text is expected"]),
        ("filters", "spec_toys:Only: true", ["4:21 filter spec_toys:Only.condition: a text is expected"]),
        ("filters", "spec_toys:Only: ''", ["4:21 filter spec_toys:Only.condition: a text of at least 1 characters is expected"]),
        ("filters", "spec_toys:Only: severty == 'x'", ["4:21 filter spec_toys:Only.condition: at column 1: no field of a message is called 'severty'; did you mean 'severity'?"]),
        ("filters", "spec_toys:Only: severity in ['x'", ["4:37 filter spec_toys:Only.condition: severity in ['x': at column 17: "]),
        ("filters", "spec_toys:Only: \"severity in ['x'\"", ["4:38 filter spec_toys:Only.condition: severity in ['x': at column 17: "]),
        ("filters", "spec_toys:Only: |\n  severity in ['x'", ["4:21 filter spec_toys:Only.condition: severity in ['x': at column "]),
        ("filters", "spec_toys:Wait: {within: 1s}\nqueue: a b", ["5:12 queue: lower-case letters, digits, '-' and '_' are expected, at most 63"]),
        ("filters", "spec_toys:Wait: {within: 1s}\nconcurrency: 4", ["5:5 'concurrency' belongs to consumers, not to a filter"]),
        ("consumers", "spec_toys:ChatRoom:\ntoken: x\nchat_id: 1", [
            "3:5 consumer spec_toys:ChatRoom.token: required",
            "3:5 consumer spec_toys:ChatRoom.chat_id: required",
            "4:5 a consumer's step has no key 'token' | options of 'spec_toys:ChatRoom' are indented under it",
            "5:5 a consumer's step has no key 'chat_id' | options of 'spec_toys:ChatRoom' are indented under it",
        ]),
        ("consumers", "spec_toys:Batch: {}\nconcurrency: 0", ["4:18 concurrency: at least 1 is expected"]),
        ("consumers", "spec_toys:Batch: {}\nconcurrency: 1001", ["4:18 concurrency: at most 1000 is expected"]),
        ("consumers", "spec_toys:Batch: {}\nretry: 6h", ["4:12 retry: a mapping is expected"]),
        ("consumers", "spec_toys:Batch: {}\nretry: {first: 0s}", ["4:20 retry.first: a duration above zero is expected"]),
        ("consumers", "spec_toys:Batch: {}\nretry: {first: 11m}", ["4:12 retry: 'first' is not longer than 'longest'"]),
        ("consumers", "spec_toys:Batch: {}\nretry: {fr: 6h}", ["4:13 retry has no option 'fr' | did you mean 'for'?"]),
        ("consumers", "spec_toys:Batch: {}\nretry: {for: soon}", ["4:18 retry.for: a duration such as 500ms, 30s, 5m, 1h30m or 7d is expected"]),
        ("consumers", "spec_toys:Batch: {}\nrate: 5", ["4:11 rate: a rate such as 20/s, 90/m or 1000/h is expected"]),
        ("consumers", "spec_toys:Batch: {}\nrate: 0/s", ["4:11 rate: a rate such as 20/s, 90/m or 1000/h is expected"]),
        ("filters", "spec_toys:Wait: {within: 1s}\nrate: 5/s", ["5:5 'rate' belongs to consumers, not to a filter"]),
        ("consumers", "spec_toys:Batch: {}\nwhen: severity ==", ["4:22 when: severity ==: at column 12: "]),
        ("consumers", "spec_toys:Unfinished", ["3:5 consumer 'spec_toys:Unfinished' is not complete: Unfinished does not define consume"]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: [1]}", ["3:45 consumer spec_toys:ChatRoom.chat_id: a whole number or a text is expected"]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, rules: [{level: mid}]}", [
            "3:56 consumer spec_toys:ChatRoom.rules[0].field: required",
            "3:64 consumer spec_toys:ChatRoom.rules[0].level: 'low' or 'high' is expected",
        ]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, code: A}", ["3:54 consumer spec_toys:ChatRoom.code: a text that matches ^[a-z]+$ is expected"]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, link: nowhere}", ["3:54 consumer spec_toys:ChatRoom.link: a URL such as https://example.com is expected"]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: [], size: '${NOPE}'}", [
            "3:45 consumer spec_toys:ChatRoom.chat_id: a whole number or a text is expected",
            "3:56 the environment variable NOPE is not set | set it, or give a default: ${NOPE:-…}",
        ]),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, rules: [{field: a, x: 1}]}", [
            "3:67 consumer spec_toys:ChatRoom.rules[0] has no option 'x' | there are field, level",
        ]),
    ],
)  # fmt: skip
def test_steps_that_are_wrong(told, kind: str, step: str, problems: list[str]) -> None:
    found = told(around(kind, step))
    assert len(found) == len(problems), found
    for one, expected in zip(found, problems, strict=True):
        assert one.startswith(expected)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ("producers: [spec_toys:Hook, spec_toys:Hook]\nconsumers: [spec_toys:Batch]\n", "1:29 two producers are called 'hook' | give one of them 'as:'; the other stands in line 1"),
        ("producers: [spec_toys:Hook]\nconsumers:\n- spec_toys:Batch\n- spec_toys:ChatRoom: {token: x, chat_id: 1}\n  as: batch\n", "4:3 two consumers are called 'batch' | give one of them 'as:'; the other stands in line 3"),
        ("producers: [spec_toys:Hook]\nfilters:\n- spec_toys:Only: severity == 'x'\n  as: batch\nconsumers:\n- spec_toys:Batch\n", "3:3 a consumer is also called 'batch' | give one of them 'as:'; the other stands in line 6"),
    ],
)  # fmt: skip
def test_two_steps_of_one_label(told, labels: str, problem: str) -> None:
    assert told(labels) == [problem]


def test_a_plugin_whose_name_cannot_be_a_label_asks_for_one(told, tmp_path) -> None:
    (tmp_path / "plugins").mkdir()
    source = (tmp_path / "plugins" / "Shout.py").write_text
    source(
        "from pipeline import Consumer, Filter, NoOptions\n"
        "class Loud(Consumer[NoOptions]):\n    def consume(self, message): ...\n"
        "class Through(Filter[NoOptions]):\n    def filter(self, message): ...\n"
    )
    text = "producers: [spec_toys:Hook]\nfilters: [Shout]\nconsumers: [Shout]\n"
    hint = "'Shout' cannot be the step's label | give it one with 'as:'"
    assert told(text) == [f"2:11 {hint}", f"3:13 {hint}"]
    assert told("producers: [spec_toys:Hook]\nconsumers:\n  - Shout:\n    as: shout\n") == []


def test_values_from_the_environment_are_read_as_what_is_expected(spec) -> None:
    step = "spec_toys:ChatRoom: {token: '${T}', chat_id: '${C}', size: '${S}'}\nactive: ${A}\nconcurrency: ${N}\nretry: {for: '${R}'}\nas: ${L}"
    made = spec(around("consumers", step), environ={"T": "t", "C": "007", "S": "9", "A": "yes", "N": "2", "R": "5m", "L": "me"})
    (chat,) = made.consumers
    assert (chat.config.chat_id, chat.config.size, chat.concurrency, chat.label) == ("007", 9, 2, "me")


SECRET = "hunter2-abc"


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("producers", "spec_toys:Poll: {url: [x]}\nschedule: '${S}'"),
        ("producers", "spec_toys:Poll: {}\nschedule: 30s\ntimezone: '${S}'"),
        ("filters", "spec_toys:Only: '${S} =='"),
        ("filters", "spec_toys:Only: 'severity == ${S} ['"),
        ("filters", "spec_toys:Once: {within: '${S}'}"),
        ("consumers", "spec_toys:ChatRoom: {token: '${S}', chat_id: nobody}"),
        ("consumers", f"spec_toys:ChatRoom: {{token: {SECRET}, chat_id: nobody}}"),
        ("consumers", f"spec_toys:ChatRoom: {{tokn: {SECRET}, chat_id: 1}}"),
        ("consumers", f"spec_toys:ChatRoom: {{token: '{SECRET}', chat_id: 1, headers: {{x: {SECRET}}}, size: 1000}}"),
        ("consumers", f"spec_toys:ChatRoom: {{token: [{SECRET}], chat_id: 1}}"),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, rules: [{field: x, level: '${S}'}]}"),
        ("consumers", "spec_toys:ChatRoom: {token: x, chat_id: 1, size: '${S}'}"),
        ("consumers", f"webhok: {{url: 'https://me:{SECRET}@example.com', headers: {{Authorization: Bearer {SECRET}}}}}"),
        ("consumers", f"telegrm: {{bot_token: {SECRET}, password: \"{SECRET}\", api-key: '{SECRET}', my_secret: {SECRET}}}"),
        ("consumers", f"telegram: {{token: {SECRET}, : : [}}"),
        ("consumers", "spec_toys:Batch:\nas: '${S} x'"),
        ("consumers", f"unknown: {{tokn: {SECRET}, inner: [{{passwrd: {SECRET}}}]}}"),
        ("consumers", f"spec_toys:ChatRoom: {{token: '${{UNSET:-{SECRET}}}', chat_id: [1]}}"),
    ],
)
def test_no_secret_is_ever_shown(check_text, kind: str, step: str) -> None:
    report = check_text(around(kind, step), environ={"S": SECRET})
    assert report.errors
    for render in RENDERERS.values():
        assert "hunter2" not in render(report)
    assert "hunter2" not in str(SpecError(report))


@pytest.mark.parametrize(
    ("active", "severity", "hint"),
    [("true", "error", ""), ("false", "warning", "it is inactive, so its options are not checked")],
)
def test_a_missing_extra_stops_only_what_is_active(check_text, monkeypatch, active, severity, hint) -> None:
    found = Registry.find

    def find(self, kind, name):
        if name == "telegram":
            raise MissingExtraError("consumer 'telegram' needs: pip install \"siftbell[telegram]\"")
        return found(self, kind, name)

    monkeypatch.setattr(Registry, "find", find)
    report = check_text(
        f"producers: [spec_toys:Hook]\nconsumers:\n  - spec_toys:Batch\n  - telegram: {{token: x}}\n    active: {active}\n"
    )
    (problem,) = report.problems
    assert (problem.severity, problem.hint) == (severity, hint)
    assert (problem.position.line, problem.position.column) == (4, 5)
    assert (report.errors, report.warnings) == ((1, 0) if severity == "error" else (0, 1))
