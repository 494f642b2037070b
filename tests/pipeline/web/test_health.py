"""The probes and the metrics of the web process."""

from __future__ import annotations

from pipeline import TemporaryError
from pipeline.engine.pipeline import Pipelines
from pipeline.settings import Settings
from pipeline.spec.model import Configuration
from pipeline.web.health import checks_of
from pipeline.web.services import Services


def stale(web) -> None:
    """Let the next look be a fresh one."""
    web.server._app.state.checks._until = 0


def test_a_process_that_answers_lives(web):
    for path in ("/livez", "/healthz"):
        assert (web.get(path, {}).status, web.get(path, {}).body) == (200, b"ok\n")


def test_ready_names_each_check_when_asked(web):
    assert web.get("/readyz", {}).body == b"ready\n"
    assert web.get("/readyz?verbose", {}).body == b"[+] broker\n[+] store\n[+] configuration\nready\n"


def test_not_ready_says_which_check_failed_and_recovers(web):
    web.broker_trouble.append(TemporaryError("no answer at 127.0.0.1:1"))
    stale(web)

    short, verbose = web.get("/readyz?all", {}), web.get("/readyz?all&verbose=1", {})

    assert (short.status, short.body) == (503, b"not ready: broker\n")
    assert verbose.body == b"[-] broker: no answer at 127.0.0.1:1\n[+] store\n[+] configuration\nnot ready\n"
    web.broker_trouble.clear()
    stale(web)
    assert web.get("/readyz", {}).status == 200


def test_without_the_broker_alone_requests_are_accepted_and_it_is_ready(web):
    web.broker_trouble.append(TemporaryError("no answer at 127.0.0.1:1"))
    stale(web)

    answer = web.get("/readyz", {})

    assert (answer.status, answer.body) == (200, b"ready; without the broker, messages are kept in the store\n")
    web.server._app.state.draining = True
    assert web.get("/readyz", {}).body == b"not ready: draining, broker\n"


def test_the_text_of_an_error_that_siftbell_does_not_know_is_not_shown(web):
    web.broker_trouble.append(OSError("redis://:hunter2@host"))
    stale(web)

    answer = web.get("/readyz?all&verbose", {})

    assert b"hunter2" not in answer.body
    assert b"broker: OSError" in answer.body


def test_a_store_without_its_database_is_not_ready(web, tmp_path):
    web.store.close()
    for file in tmp_path.glob("store.db*"):
        file.unlink()
    stale(web)

    assert web.get("/readyz", {}).body == b"not ready: store\n"


def test_while_it_drains_it_is_not_ready_and_goes_on_accepting(web):
    web.server._app.state.draining = True

    assert web.get("/readyz", {}).body == b"not ready: draining\n"
    assert web.post({"title": "x"}).status == 202
    assert web.get("/livez", {}).status == 200


def test_without_pipelines_it_is_not_ready(store, tmp_path):
    services = Services(
        pipelines=Pipelines(Configuration()),
        store=store,
        publisher=None,
        settings=Settings(data=tmp_path),
        check_broker=lambda: None,
    )

    assert checks_of(services).run() == {"broker": "", "store": "", "configuration": "there is no pipeline"}


def test_metrics_count_what_was_accepted_and_refused(web):
    web.post({"title": "x"})
    web.post({})

    answer = web.get("/metrics", {})

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert b'siftbell_messages_accepted_total{pipeline="toy",producer="echo"}' in answer.body
    assert b'siftbell_requests_refused_total{pipeline="toy",status="422"}' in answer.body
    assert web.key.encode() not in answer.body
