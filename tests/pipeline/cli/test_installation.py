"""`siftbell keys`, `dead-letters`, `db`, `doctor` and `run-now`, on a real store and the embedded broker."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from pipeline.cli import doctor
from pipeline.engine.batch import decode
from pipeline.keys import digest_of
from pipeline.message import Message
from pipeline.queue.publishing import CeleryQueue
from pipeline.settings import Settings
from pipeline.store import DeadLetter, Store

AT = datetime(2026, 11, 21, 3, 59, tzinfo=UTC)


@pytest.fixture
def settings(project: Path) -> Settings:
    """Settings whose store has its tables."""
    settings = Settings(data=project / ".siftbell")
    with closing(Store(settings.store_url)) as store:
        store.migrate()
    return settings


def bury(settings: Settings, *letters: DeadLetter) -> None:
    with closing(Store(settings.store_url)) as store:
        store.settle(dead=letters)


def letter(number: int, **changes) -> DeadLetter:
    message = Message(id=f"0193a5d2-0000-7000-8000-{number:012}", source="test", title=f"message {number}")
    given = {"pipeline": "alerts", "step": "oncall", "error": "410: gone", "at": AT + timedelta(seconds=number)}
    return DeadLetter(message=message, **given | changes)


# keys


def test_a_key_is_made_listed_and_revoked(settings: Settings, process) -> None:
    made = process("keys", "create", "prometheus", "--expires", "90d")
    assert made.code == 0
    key = made.out.strip()
    assert digest_of(key) is not None
    assert key not in made.err
    with closing(Store(settings.store_url)) as store:
        (stored,) = store.keys()
    assert (stored.name, stored.scopes, stored.digest) == ("prometheus", {"intake"}, digest_of(key))
    assert stored.expires is not None
    assert timedelta(days=89) < stored.expires - datetime.now(UTC) <= timedelta(days=90)
    assert process("keys", "create", "prometheus").code == 1
    listed = process("keys", "list")
    assert "prometheus" in listed.out
    assert key not in listed.out
    assert process("keys", "revoke", "prometheus").code == 0
    assert process("keys", "list").err == "no keys; make one with `siftbell keys create NAME`\n"


@pytest.mark.usefixtures("settings")
def test_keys_for_programs(siftbell) -> None:
    made = siftbell("keys", "create", "ci", "--scope", "api", "--scope", "intake", "-o", "json").json
    assert (made["name"], made["scopes"], made["expires"]) == ("ci", ["api", "intake"], None)
    (listed,) = siftbell("keys", "list", "-o", "json").json
    assert listed["prefix"] == made["key"][:9]
    assert listed["scopes"] == "api intake"
    assert siftbell("keys", "create", "tmp", "--expires", "1h", "-o", "json").json["expires"]


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("revoke", "nobody"), 4, "no key is called 'nobody'"),
        (("create", "x", "--expires", "soon"), 2, "--expires: a duration such as 12h or 90d is expected"),
        (("create", "x", "--expires", "999999999d"), 2, "--expires: a duration such as 12h or 90d is expected"),
    ],
)
def test_what_keys_refuse(siftbell, arguments, code, text) -> None:
    done = siftbell("keys", *arguments)
    assert (done.code, done.out, done.err) == (code, "", f"siftbell: {text}\n")


# dead letters


def test_dead_letters_are_listed_newest_first(settings: Settings, process) -> None:
    bury(settings, letter(1), letter(2), letter(3, pipeline="other", step="mail"))
    done = process("dead-letters", "list")
    assert done.code == 0
    rows = done.out.splitlines()[2:]
    assert [row.split()[3] for row in rows] == [letter(number).message.id for number in (3, 2, 1)]
    assert "2026-11-21T03:59:01Z" in rows[2]
    only = process("dead-letters", "list", "--pipeline", "other", "--step", "mail", "-o", "json").json
    assert [(one["title"], one["error"], one["attempts"]) for one in only] == [("message 3", "410: gone", 1)]
    few = process("dead-letters", "list", "--limit", "1")
    assert few.err == "the newest 1 of 3\n"


@pytest.mark.usefixtures("settings")
def test_none_is_said_and_is_an_empty_list(siftbell) -> None:
    assert (siftbell("dead-letters", "list").out, siftbell("dead-letters", "list").err) == ("", "no dead letters\n")
    assert siftbell("dead-letters", "list", "-o", "json").json == []


def test_a_data_directory_may_be_named(project: Path, siftbell) -> None:
    assert siftbell("db", "upgrade", "--data", "elsewhere").code == 0
    assert (project / "elsewhere" / "store.db").exists()
    assert siftbell("keys", "list", "--data", "elsewhere", "-o", "json").json == []


def test_one_dead_letter_is_shown_whole(settings: Settings, siftbell) -> None:
    bury(settings, letter(1, traceback="Traceback\n  boom\n", attempts=4), letter(1, step=""))
    message_id = letter(1).message.id
    shown = siftbell("dead-letters", "show", message_id)
    assert shown.code == 0
    assert "given up by oncall of alerts after 4 attempts, 2026-11-21 03:59:01 UTC" in shown.out
    assert "given up by the intake of alerts at the first attempt" in shown.out
    assert "error: 410: gone" in shown.out
    assert "  boom" in shown.out
    data = siftbell("dead-letters", "show", message_id, "-o", "json").json
    assert {one["step"] for one in data} == {"", "oncall"}
    assert data[0]["message"]["title"] == "message 1"
    assert siftbell("dead-letters", "show", "nothing").code == 4


# the store


def test_a_store_that_is_not_there_is_3_and_upgrade_makes_it(project: Path, process) -> None:
    away = process("dead-letters", "list")
    assert (away.code, away.out) == (3, "")
    assert away.err.startswith("siftbell: the store (")
    made = process("db", "upgrade", "--data", ".siftbell")
    assert (made.code, made.out, made.err) == (0, "", "the store's tables are up to date\n")
    assert process("dead-letters", "list", "-o", "yaml").out.strip() == "[]"


def test_a_server_that_is_away_is_named_without_its_password(process) -> None:
    done = process("db", "upgrade", SIFTBELL_STORE="postgresql://root:hunter2@127.0.0.1:1/test")
    assert done.code == 3
    assert "127.0.0.1:1" in done.err
    assert "hunter2" not in done.err


# run-now


def queued(settings: Settings) -> list[str]:
    """Give the titles of the messages that wait on the embedded broker."""
    titles = []
    queue = CeleryQueue.from_settings(settings)
    with closing(queue), queue._app.connection_for_read() as connection, connection.SimpleQueue("in") as waiting:
        while len(waiting):
            taken = waiting.get(timeout=5)
            titles += [message.title for message in decode(taken.payload[0][0]).messages]
            taken.ack()
    return titles


def test_polling_producers_are_asked_once_and_go_on_from_their_cursor(settings: Settings, process) -> None:
    done = process("run-now", "alerts")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].split() == ["ask", "3"]
    assert queued(settings) == ["number 0", "number 1", "number 2"]
    assert process("run-now", "alerts", "ask", "-o", "json").json == [{"producer": "ask", "messages": 0}]


def test_a_producer_that_a_clock_is_asking_is_left_alone(settings: Settings, siftbell) -> None:
    with closing(Store(settings.store_url)) as store:
        assert store.claim_occurrence("alerts", "ask", datetime.now(UTC), "clock", timedelta(minutes=1))
    done = siftbell("run-now", "alerts")
    assert (done.code, done.err) == (1, "siftbell: producer 'ask' of pipeline 'alerts' is being polled right now\n")


@pytest.mark.usefixtures("settings")
def test_run_now_needs_a_producer_that_polls(project: Path, siftbell) -> None:
    assert siftbell("run-now", "alrts").code == 4
    done = siftbell("run-now", "alerts", "take")
    assert (done.code, done.err) == (4, "siftbell: pipeline 'alerts' has no polling producer 'take': there are ask\n")
    pipeline = "name: alerts\nproducers:\n  - take: {}\nconsumers:\n  - tell: {token: x}\n"
    (project / "configs" / "alerts.yaml").write_text(pipeline)
    done = siftbell("run-now", "alerts")
    assert (done.code, done.err) == (4, "siftbell: pipeline 'alerts' has no polling producer: none of its producers polls\n")


# doctor


def found(findings: list[dict[str, str]]) -> dict[str, tuple[str, str]]:
    return {one["what"]: (one["state"], one["text"]) for one in findings}


def test_a_fresh_machine_has_nothing_in_the_way(project: Path, process) -> None:
    done = process("doctor", "-o", "json")
    assert (done.code, done.err) == (0, "")
    findings = found(done.json)
    assert findings["data directory"][0] == "note"
    assert findings["broker"] == findings["store"] == ("note", "embedded: `siftbell run` makes it")
    assert findings["configuration"] == ("ok", "alerts (1 file, no problems)")
    assert findings["celery"][0] == findings["kombu"][0] == findings["import names"][0] == "ok"
    assert findings["extra redis"][1].startswith("redis ")
    assert not (project / ".siftbell").exists()


def test_what_is_there_is_asked(settings: Settings, process) -> None:
    done = process("doctor")
    well = "nothing stands in the way; `siftbell check --connect` asks the steps' targets whether they answer\n"
    assert (done.code, done.err) == (0, well)
    lines = {line.split("  ")[0]: line for line in done.out.splitlines()}
    for what in ("data directory", "broker", "store"):
        assert " ok " in lines[what]


def test_servers_that_are_away_are_errors_without_their_secrets(settings: Settings, process) -> None:
    away = {
        "SIFTBELL_BROKER": "redis://:hunter2@127.0.0.1:1/0",
        "SIFTBELL_STORE": "postgresql://root:hunter2@127.0.0.1:1/test",
        "SIFTBELL_MEMORY": "redis://:hunter2@127.0.0.1:1/1",
    }
    done = process("doctor", "-o", "json", **away)
    assert done.code == 1
    assert "hunter2" not in done.out + done.err
    findings = found(done.json)
    assert [findings[what][0] for what in ("broker", "store", "memory")] == ["error"] * 3


def test_servers_that_answer_are_named_by_their_place(
    settings: Settings, siftbell, monkeypatch, require_rabbitmq, require_redis
) -> None:
    monkeypatch.setenv("SIFTBELL_BROKER", require_rabbitmq)
    monkeypatch.setenv("SIFTBELL_MEMORY", require_redis)
    findings = found(siftbell("doctor", "-o", "json").json)
    assert findings["broker"] == ("ok", doctor.place_of_url(require_rabbitmq))
    assert findings["memory"] == ("ok", doctor.place_of_url(require_redis))


def test_a_data_directory_open_to_others_is_an_error(settings: Settings, siftbell) -> None:
    settings.data.chmod(0o755)
    done = siftbell("doctor")
    assert done.code == 1
    assert "is open to others (0755): chmod 700" in done.out
    assert done.err == "1 error\n"
    settings.data.chmod(0o700)
    assert siftbell("doctor").code == 0


def test_a_data_directory_that_is_none_is_an_error(project: Path, siftbell) -> None:
    (project / ".siftbell").write_text("")
    findings = found(siftbell("doctor", "-o", "json").json)
    assert findings["data directory"] == ("error", f"{project}/.siftbell is not a directory")


def test_a_data_directory_that_cannot_be_written_is_an_error(settings: Settings, siftbell, monkeypatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    assert "cannot be written to" in siftbell("doctor").out


def test_configuration_errors_are_counted(project: Path, siftbell) -> None:
    (project / "configs" / "alerts.yaml").write_text("producers:\n  - tak: {}\nconsumers:\n  - tell: {token: x}\n")
    done = siftbell("doctor", "-o", "json")
    assert found(done.json)["configuration"] == ("error", "1 error in 1 of 1 file: `siftbell check` names them")
    assert done.code == 1


def test_another_owner_of_an_import_name_is_an_error(project: Path, siftbell, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "packages_distributions", lambda: {"filters": ["filters-lib", "siftbell"]})
    findings = found(siftbell("doctor", "-o", "json").json)
    assert findings["import names"] == (
        "error",
        "the import name 'filters' also belongs to filters-lib: give siftbell a venv of its own",
    )


def test_a_directory_that_shadows_an_import_name_is_an_error(project: Path, process, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "filters").mkdir(parents=True)
    (tmp_path / "elsewhere" / "filters" / "__init__.py").touch()
    done = process("doctor", "-o", "json", PYTHONPATH=str(tmp_path / "elsewhere"))
    assert found(done.json)["import names"][0] == "error"
    assert f"{tmp_path}/elsewhere/filters" in found(done.json)["import names"][1]


def test_a_missing_extra_is_a_note(project: Path, siftbell, monkeypatch) -> None:
    installed = doctor.version

    def version(package: str) -> str:
        if package == "redis":
            raise PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(doctor, "version", version)
    findings = found(siftbell("doctor", "-o", "json").json)
    assert findings["extra redis"] == ("note", 'without redis: pip install "siftbell[redis]"')


def test_a_url_gives_no_more_than_its_place() -> None:
    assert doctor.place_of_url("amqp://user:secret@host:5672/vhost?x=secret") == "amqp://host:5672"
    assert doctor.place_of_url("sqs://") == "sqs://"
    assert doctor.place_of_url("redis://host:port/0") == "redis://host"


def test_extras_are_read_from_the_distribution() -> None:
    extras = doctor.extras()
    assert extras["telegram"] == ["python-telegram-bot"]
    assert "all" not in extras
    assert json.dumps(extras)


@pytest.mark.parametrize(
    ("keep", "state", "text"),
    [
        ("24h", "ok", "alerts for 1d"),
        ("{for: 30d}", "note", "alerts for 30d; what was done with them is known for 7d (SIFTBELL_RETENTION): alerts"),
    ],
)
def test_pipelines_that_keep_their_messages_are_named(project: Path, siftbell, keep: str, state: str, text: str) -> None:
    file = project / "configs" / "alerts.yaml"
    file.write_text(f"keep: {keep}\n{file.read_text()}")
    assert found(siftbell("doctor", "-o", "json").json)["kept messages"] == (state, text)
