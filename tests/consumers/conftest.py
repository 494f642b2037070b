"""What tests of several consumers share: opened plugins, certificates, moto and its credentials, clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from moto.server import ThreadedMotoServer

from pipeline.aws.session import new_session

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
        made.append(new_session().create_client(service, region_name=REGION, endpoint_url=moto))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def opened() -> Iterator[Callable[..., Any]]:
    """Makes opened plugins of a class and options; all are closed after the test."""
    made = []

    def make(plugin: Any, **options: Any) -> Any:
        one = plugin(plugin.config_type.model_validate(options))
        one.open()
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 with its key, and its authority, made for this session: the directory they are in."""
    directory = tmp_path_factory.mktemp("certificates")
    now = datetime.now(UTC)

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def issue(subject, key, issuer, by, *, authority):
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        if not authority:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(by, hashes.SHA256())

    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = issue("an authority", root_key, "an authority", root_key, authority=True)
    leaf = issue("127.0.0.1", key, "an authority", root_key, authority=False)
    (directory / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    written = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + leaf.public_bytes(serialization.Encoding.PEM)
    (directory / "server.pem").write_bytes(written)
    return directory
