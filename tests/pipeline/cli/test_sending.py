"""`siftbell send`, to a real HTTP server that answers as the intake does."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

KEY = "sb_key-of-the-test"
IDS = ["0193a5d2-0000-7000-8000-000000000001", "0193a5d2-0000-7000-8000-000000000002"]


@pytest.fixture
def server(httpserver: HTTPServer) -> HTTPServer:
    httpserver.expect_request("/in/alerts/take", method="POST").respond_with_json({"ids": IDS[:1], "count": 1}, status=202)
    return httpserver


def last(server: HTTPServer) -> Request:
    return server.log[-1][0]


@pytest.fixture
def running(project: Path, server: HTTPServer) -> Path:
    """A data directory as `siftbell run` leaves it for others to find the server."""
    data = project / ".siftbell"
    data.mkdir(mode=0o700)
    (data / "url").write_text(server.url_for("") + "\n")
    (data / "api-key").write_text(KEY + "\n")
    return data


def test_fields_become_an_object_and_the_ids_are_printed(running: Path, server: HTTPServer, process) -> None:
    done = process("send", "alerts", "title=disk full", "severity=critical", "text=a=b")
    assert (done.code, done.out, done.err) == (0, f"{IDS[0]}\n", "1 message accepted\n")
    request = last(server)
    assert request.get_json() == {"title": "disk full", "severity": "critical", "text": "a=b"}
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"


def test_fields_go_to_the_producer_that_takes_any_json(running: Path, project: Path, httpserver: HTTPServer, siftbell) -> None:
    producers = "  - take: {}\n  - http: {}\n    as: events\n"
    (project / "configs" / "alerts.yaml").write_text(f"name: alerts\nproducers:\n{producers}consumers:\n  - tell: {{token: x}}\n")
    httpserver.expect_request("/in/alerts/events").respond_with_json({"ids": IDS, "count": 2}, status=202)
    assert siftbell("send", "alerts", "title=x").out.split() == IDS
    done = siftbell("send", "alerts", stdin=b"{}")
    assert (done.code, done.err) == (2, "siftbell: pipeline 'alerts' needs --producer: there are take, events\n")


def test_a_file_or_stdin_is_sent_as_it_is(running: Path, project: Path, server: HTTPServer, siftbell) -> None:
    (project / "body").write_bytes(b"\xff\x00")
    assert siftbell("send", "alerts", "-f", project / "body", "--content-type", "text/plain").code == 0
    assert last(server).get_data() == b"\xff\x00"
    assert last(server).headers["content-type"] == "text/plain"
    assert siftbell("send", "alerts", "-f", "-", stdin=b"[]").code == 0
    assert last(server).get_data() == b"[]"


def test_programs_get_the_answer(running: Path, siftbell) -> None:
    assert siftbell("send", "alerts", "title=x", "-o", "json").json == {"ids": IDS[:1], "count": 1}
    assert f"- {IDS[0]}" in siftbell("send", "alerts", "title=x", "-o", "yaml").out


def test_a_pipeline_of_another_machine_needs_no_configuration_here(
    httpserver: HTTPServer, tmp_path: Path, siftbell, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIFTBELL_API_KEY", "from-outside")
    httpserver.expect_request("/base/in/far away/http").respond_with_json({"ids": IDS, "count": 2}, status=202)
    done = siftbell("send", "far away", "title=x", "--producer", "http", "--url", httpserver.url_for("/base/"))
    assert (done.code, done.out.split(), done.err) == (0, IDS, "2 messages accepted\n")
    assert last(httpserver).headers["authorization"] == "Bearer from-outside"


def test_the_key_of_the_data_directory_goes_to_its_own_server_only(running: Path, server: HTTPServer, siftbell) -> None:
    (running / "url").write_text("http://127.0.0.1:1")
    assert siftbell("send", "alerts", "title=x", "--url", server.url_for("")).code == 0
    assert "authorization" not in last(server).headers
    (running / "url").write_text(server.url_for(""))
    assert siftbell("send", "alerts", "title=x", "--url", server.url_for("/")).code == 0
    assert last(server).headers["authorization"] == f"Bearer {KEY}"


def test_a_key_of_the_environment_comes_first_and_is_never_shown(running: Path, server: HTTPServer, process) -> None:
    done = process("send", "alerts", "title=x", SIFTBELL_API_KEY="first-key", SIFTBELL_LOG_LEVEL="debug")
    assert last(server).headers["authorization"] == "Bearer first-key"
    assert "first-key" not in done.out + done.err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        (401, {"error": {"message": "this API key is not known"}}, 3, "the server refused it (401): this API key is not known"),
        (403, {"error": {"message": "it has expired"}}, 3, "the server refused it (403): it has expired"),
        (404, {"error": {"message": "there is no pipeline"}}, 4, "the server refused it (404): there is no pipeline"),
        (503, {"error": {"message": "come again"}}, 3, "the server refused it (503): come again"),
        (413, {"error": {"message": "too large"}}, 1, "the server refused it (413): too large"),
        (302, {}, 1, "the server refused it (302): it does not say why"),
        (400, ["odd"], 1, "the server refused it (400): it does not say why"),
        (400, {"error": "odd"}, 1, "the server refused it (400): it does not say why"),
    ],
)
def test_each_refusal_has_its_code(httpserver: HTTPServer, siftbell, monkeypatch, status, body, code, text) -> None:
    monkeypatch.setenv("SIFTBELL_API_KEY", KEY)
    httpserver.expect_request("/in/alerts/take").respond_with_json(body, status=status)
    done = siftbell("send", "alerts", "title=x", "--url", httpserver.url_for(""))
    assert (done.code, done.out, done.err) == (code, "", f"siftbell: {text}\n")


@pytest.mark.usefixtures("project")
def test_each_problem_is_named(httpserver: HTTPServer, siftbell) -> None:
    problems = [{"where": "[3].title", "message": "required"}, {"where": "", "message": "too\x1b short"}, "odd"]
    answer = {"error": {"message": "bad", "problems": problems}}
    httpserver.expect_request("/in/alerts/take").respond_with_json(answer, status=422)
    done = siftbell("send", "alerts", "title=x", "--url", httpserver.url_for(""))
    assert done.code == 1
    assert done.err == ("siftbell: the server refused it (422): bad\n  [3].title: required\n  the body: too\\x1b short\n")


@pytest.mark.usefixtures("project")
def test_where_a_key_comes_from_is_said_when_there_was_none(httpserver: HTTPServer, siftbell) -> None:
    httpserver.expect_request("/in/alerts/take").respond_with_response(Response("no", status=401))
    done = siftbell("send", "alerts", "title=x", "--url", httpserver.url_for(""))
    assert done.code == 3
    assert "SIFTBELL_API_KEY" in done.err


def test_a_server_that_is_not_there_is_3(project: Path, process) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = process("send", "alerts", "title=x", SIFTBELL_PORT=str(port))
    assert (done.code, done.out) == (3, "")
    assert done.err == f"siftbell: http://127.0.0.1:{port} is not reachable: Connection refused\n"


def test_a_server_that_speaks_something_else_is_3(project: Path, siftbell) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-odd\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = siftbell("send", "alerts", "title=x", "--url", f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join(10)
    assert done.code == 3
    assert "is not reachable" in done.err


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("title",), "FIELD=VALUE is expected, such as title='disk full'"),
        (("=x",), "FIELD=VALUE is expected, such as title='disk full'"),
        (("a=1", "a=2"), "a is given twice"),
        (("a=1", "-f", "x"), "a payload comes from a file or from FIELD=VALUE, not from both"),
        (("a=1", "--url", "ftp://x"), "--url: http://HOST:PORT or https://HOST is expected"),
        (("a=1", "--url", "http://user:secret@x"), "--url: http://HOST:PORT or https://HOST is expected"),
        (("a=1", "--url", "http://x:99999"), "--url: the port is not a number up to 65535"),
    ],
)
def test_wrong_usage_is_2(siftbell, arguments, text) -> None:
    done = siftbell("send", "alerts", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"siftbell: {text}\n")


@pytest.mark.usefixtures("project")
def test_an_unknown_pipeline_is_4(siftbell) -> None:
    assert siftbell("send", "alrts", "title=x").code == 4


@pytest.mark.usefixtures("project")
def test_https_is_spoken_where_it_is_asked_for(siftbell, httpserver: HTTPServer) -> None:
    done = siftbell("send", "alerts", "title=x", "--url", httpserver.url_for("").replace("http:", "https:"))
    assert done.code == 3
