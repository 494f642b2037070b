"""Where plugins may connect to: what is refused, what is allowed, and that no way around it is left."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from consumers.webhook import Webhook, WebhookConfig
from pipeline import Message, PermanentError, TemporaryError
from pipeline.engine.loop import run_on_loop
from pipeline.networks import ANYWHERE, Networks
from pipeline.settings import Settings
from pipeline.spec import check, load
from pipeline.testing import LoopbackServer
from pipeline.testing.consumers import deliver

MESSAGE = Message(source="t", title="disk full")
PUBLIC = Networks()


def networks(*allowed):
    return Networks(map(ip_network, allowed))


@pytest.fixture
def server():
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def names(monkeypatch):
    """Answers of the name server, one after the other; the last one stays."""
    answers: list[list[str]] = []

    def getaddrinfo(host, port, *_args, **_kwargs):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        families = [(socket.AF_INET6, (a, port, 0, 0)) if ":" in a else (socket.AF_INET, (a, port)) for a in found]
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in families]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return answers


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.255.1.2", "a loopback address"),
        ("::1", "a loopback address"),
        ("10.1.2.3", "a private address"),
        ("172.16.0.1", "a private address"),
        ("172.31.255.255", "a private address"),
        ("192.168.1.1", "a private address"),
        ("fd12::1", "a private address"),
        ("fec0::1", "a private address"),
        ("169.254.169.254", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("100.64.0.1", "an address behind a provider's NAT"),
        ("0.0.0.0", "an address of this host"),
        ("0.1.2.3", "an address of this host"),
        ("::", "an address of this host"),
        ("224.0.0.251", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("240.0.0.1", "a reserved address"),
        ("255.255.255.255", "a reserved address"),
        ("192.0.2.1", "a reserved address"),
        ("198.19.0.1", "a reserved address"),
        ("2001:db8::1", "a reserved address"),
        ("::127.0.0.1", "a reserved address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("::ffff:a9fe:a9fe", "a link-local address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("2002:7f00:1::", "a loopback address"),
    ],
)
def test_what_is_refused(address, kind):
    assert PUBLIC.refusal(address).startswith(f"{address} is {kind}; to allow it, add ")
    assert ANYWHERE.refusal(address) == ""


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"],
)
def test_what_is_public(address):
    assert PUBLIC.refusal(address) == ""


def test_what_is_allowed_is_the_address_that_is_reached():
    some = networks("10.0.0.0/8", "::1")
    assert [some.refusal(one) for one in ("10.9.9.9", "::ffff:10.9.9.9", "64:ff9b::a09:909", "::1")] == ["", "", "", ""]
    assert some.refusal("127.0.0.1")
    assert networks("::/0").refusal("::ffff:10.0.0.1"), "it is an address of IPv4"
    assert PUBLIC.refusal("::ffff:10.0.0.1").endswith("add 10.0.0.1 to SIFTBELL_PRIVATE_NETWORKS")


def test_hosts_that_show_where_they_lead():
    assert "127.0.0.1 is a loopback address" in PUBLIC.refusal_of_host("localhost")
    assert PUBLIC.refusal_of_host("api.localhost")
    assert PUBLIC.refusal_of_host("169.254.169.254")
    assert networks("::1").refusal_of_host("localhost") == ""
    assert [PUBLIC.refusal_of_host(host) for host in ("example.com", "1.1.1.1", "localhost.example.com", "")] == [""] * 4


def guarded(url, allowed=PUBLIC):
    plugin = Webhook(WebhookConfig.model_validate({"url": url}))
    plugin.networks = allowed
    return plugin


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"])
def test_a_message_is_not_posted_to_a_private_address_however_it_is_written(server, host):
    port = server.url.rpartition(":")[2]
    with pytest.raises(TemporaryError, match=rf"^POST http://.*:{port}: .* is .* address.*; to allow it, add .*NETWORKS$"):
        deliver(guarded(f"http://{host}:{port}/x"), MESSAGE)
    assert server.connections == []


def test_what_is_allowed_is_posted(server):
    deliver(guarded(f"{server.url}/x", networks("127.0.0.0/8")), MESSAGE)
    assert len(server.received) == 1


def test_a_name_is_judged_by_the_address_that_is_connected_to(server, names):
    names.append(["127.0.0.1"])
    port = server.url.rpartition(":")[2]
    with pytest.raises(TemporaryError, match=r"hooks\.example\.com:\d+: 127\.0\.0\.1 is a loopback address"):
        deliver(guarded(f"http://hooks.example.com:{port}/x"), MESSAGE)
    assert server.connections == []


def test_of_a_names_addresses_those_that_are_refused_are_left_out(server, names):
    names.append(["::1", "10.0.0.1", "127.0.0.1"])
    port = server.url.rpartition(":")[2]
    deliver(guarded(f"http://hooks.example.com:{port}/x", networks("127.0.0.1")), MESSAGE)
    assert len(server.received) == 1


def test_a_name_that_leads_elsewhere_the_second_time_is_refused(server, names):
    names += [["127.0.0.2"], ["127.0.0.1"]]
    port = server.url.rpartition(":")[2]
    plugin = guarded(f"http://hooks.example.com:{port}/x", networks("127.0.0.2"))
    with pytest.raises(TemporaryError, match="no connection"):
        deliver(plugin, MESSAGE)  # nothing listens there, but it was tried
    with pytest.raises(TemporaryError, match=r"127\.0\.0\.1 is a loopback address"):
        deliver(plugin, MESSAGE)
    assert server.connections == []


def test_on_the_engines_loop_nothing_slips_through(server):
    with pytest.raises(TemporaryError, match="loopback"):
        run_on_loop(guarded(server.url).consume(MESSAGE), timeout=30)
    assert server.connections == []


def test_others_on_the_same_loop_are_not_refused(server):
    open_one, shut_one = guarded(server.url, ANYWHERE), guarded(server.url)

    async def both():
        found = await asyncio.gather(open_one.consume(MESSAGE), shut_one.consume(MESSAGE), return_exceptions=True)
        await open_one.aclose()
        return found

    fine, refused = asyncio.run(both())
    assert fine is None
    assert isinstance(refused, TemporaryError)
    assert len(server.received) == 1


def test_an_event_loop_that_connects_in_c_is_refused(server):
    uvloop = pytest.importorskip("uvloop")
    with pytest.raises(PermanentError, match="on the event loop Loop"):
        uvloop.run(guarded(server.url).consume(MESSAGE))
    assert server.connections == []


def ask(port):
    with closing(http.client.HTTPConnection("localhost", port, timeout=5)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


def test_any_library_that_uses_pythons_sockets_is_guarded(server):
    port = int(server.url.rpartition(":")[2])

    with pytest.raises(TemporaryError, match="loopback"), PUBLIC.guard():
        ask(port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        with pytest.raises(TemporaryError, match="loopback"), PUBLIC.guard():
            udp.sendto(b"x", ("127.0.0.1", port))
        with pytest.raises(TemporaryError, match="is a name"), PUBLIC.guard():
            udp.sendto(b"x", ("localhost", port))
    assert server.connections == []
    ask(port)
    assert len(server.connections) == 1


def test_another_thread_is_not_guarded(server):
    port = int(server.url.rpartition(":")[2])
    with PUBLIC.guard():
        thread = threading.Thread(target=ask, args=[port])
        thread.start()
        thread.join()
    assert len(server.connections) == 1


def test_an_error_of_another_kind_stays_what_it_is():
    with pytest.raises(ZeroDivisionError), PUBLIC.guard():
        raise ZeroDivisionError


@pytest.fixture
def pipeline(tmp_path):
    def write(url: str) -> Path:
        path = tmp_path / "hook.yaml"
        path.write_text(f"producers: [http]\nconsumers:\n  - webhook: {{url: '{url}'}}\n")
        return path

    return write


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.7:8080", "[::1]", "169.254.169.254", "[::ffff:10.0.0.7]"])
def test_a_url_that_shows_where_it_leads_is_an_error_at_its_place(pipeline, host):
    (problem,) = check([pipeline(f"http://{host}/hooks/a-secret")], networks=PUBLIC).problems
    assert problem.text.startswith("consumer webhook.url: ")
    assert problem.text.endswith("to SIFTBELL_PRIVATE_NETWORKS")
    assert (problem.position.line, problem.position.column) == (3, 20)
    assert "a-secret" not in problem.text
    assert check([pipeline(f"http://{host}/hooks/a-secret")]).errors == 0


def test_a_step_hands_the_networks_to_its_plugin(pipeline):
    some = networks("10.0.0.0/8")
    (spec,) = load([pipeline("http://10.0.0.7/x")], networks=some).pipelines.values()
    assert spec.consumers[0].build().networks is some


def test_the_setting(monkeypatch):
    monkeypatch.setenv("SIFTBELL_PRIVATE_NETWORKS", "10.1.2.3/8, 127.0.0.1 ::1")
    settings = Settings()
    assert [str(one) for one in settings.private_networks] == ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]
    assert settings.networks.refusal("10.200.0.1") == ""
    assert settings.environment()["SIFTBELL_PRIVATE_NETWORKS"] == "10.0.0.0/8,127.0.0.1/32,::1/128"
    monkeypatch.setenv("SIFTBELL_PRIVATE_NETWORKS", "intranet.example")
    with pytest.raises(ValidationError, match=r"networks such as 10\.0\.0\.0/8"):
        Settings()
    monkeypatch.setenv("SIFTBELL_PRIVATE_NETWORKS", "")
    assert Settings().private_networks == ()
