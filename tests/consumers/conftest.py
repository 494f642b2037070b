"""What the tests of consumers of AWS share: moto, credentials, and plain clients to look at what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from botocore.session import Session
from moto.server import ThreadedMotoServer

REGION = "eu-west-1"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The address of a moto server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, as AWS's clients find them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAMADEUP")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-made-up-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def client(moto: str, credentials: None) -> Iterator[Callable[[str], object]]:
    """Makes a plain client of one of moto's services."""
    made = []

    def make(service: str) -> object:
        made.append(Session().create_client(service, region_name=REGION, endpoint_url=moto))
        return made[-1]

    yield make
    for one in made:
        one.close()
