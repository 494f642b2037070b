"""The servers that tests need: skipped loudly where one is missing on a laptop, failed where CI=true.

And the account of what each plugin was tried against: `against(plugin, counterpart)` marks a test, what passed is written into
docs/plugins/tested.json by `--matrix`, and with CI=true a whole run fails where the file claims what did not pass.

And how the tests of the script plugins write their executables.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import structlog

POSTGRES = os.environ.get("SIFTBELL_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("SIFTBELL_TEST_REDIS", "redis://127.0.0.1:6379/9")
os.environ.setdefault("SIFTBELL_PRIVATE_NETWORKS", "127.0.0.0/8,::1")  # where the tests' own servers are
MARIADB = os.environ.get("SIFTBELL_TEST_MARIADB", "mariadb://root@127.0.0.1:3306/")
RABBITMQ = os.environ.get("SIFTBELL_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
TESTED = Path(__file__).parents[1] / "docs" / "plugins" / "tested.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix", action="store_true", help="write what the plugins were tried against into docs/plugins/tested.json"
    )


def pytest_configure(config: pytest.Config) -> None:
    # As in the product, tracebacks without local variables; structlog's own take seconds to write them.
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], console])
    if not hasattr(config, "workerinput"):  # where xdist spreads the tests, this is the process that gets all reports
        config.pluginmanager.register(Matrix(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith("tests/producers/"))  # else the file that takes longest comes last
    for item in items:
        item.user_properties += [("against", pair) for pair in tried_by(item)]


def tried_by(item: pytest.Item) -> Iterator[tuple[str, str]]:
    """Gives each plugin that a test tries, with the counterpart; `{NAME}` in it asks for the test's parameter of that name."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    for marker in item.iter_markers("against"):
        plugin, counterpart = marker.args
        with contextlib.suppress(KeyError):
            yield plugin, counterpart.format_map(parameters)


class Matrix:
    """What each plugin was tried against in this run, by the tests that passed."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        picked = config.option.keyword or config.option.markexpr or config.option.collectonly
        self.whole = config.args_source is config.ArgsSource.TESTPATHS and not picked
        self.passed: set[tuple[str, str]] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed |= {(plugin, counterpart) for name, (plugin, counterpart) in report.user_properties if name == "against"}

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if session.shouldfail or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):  # it was broken off
            self.whole = False
        if self.config.option.matrix:
            tried = self.passed | (set() if self.whole else claimed())
            rows = [f"  {json.dumps(pair, ensure_ascii=False)}" for pair in sorted(tried)]
            TESTED.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
        elif self.unshown():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for plugin, counterpart in self.unshown():
            terminalreporter.write_line(
                f"docs/plugins/tested.json says that {plugin} was tried against {counterpart}: no such test passed. "
                "Where that is as it should be, `make test ARGS=--matrix` and `make docs` write it anew."
            )

    def unshown(self) -> list[tuple[str, str]]:
        """Gives what the matrix claims and this run does not bear out; a part of the tests, or a laptop's, need not."""
        return sorted(claimed() - self.passed) if self.whole and os.environ.get("CI") == "true" else []


def claimed() -> set[tuple[str, str]]:
    """Gives what the matrix says: each plugin with what it was tried against."""
    return {(plugin, counterpart) for plugin, counterpart in json.loads(TESTED.read_text(encoding="utf-8"))}


def _required(url: str, name: str, port: int) -> str:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or port), timeout=3).close()
    except OSError as error:
        text = f"{name} does not answer at {parts.hostname}:{parts.port or port} ({error}); see SIFTBELL_TEST_{name.upper()}"
        _missing(text)
    return url


def _missing(text: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(text)
    pytest.skip(text)


@pytest.fixture(autouse=True)
def metrics_of_this_process_only() -> Iterator[None]:
    """Forgets what `siftbell run`, called in this process, has set for the parts that it would start."""
    yield
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)


@pytest.fixture(scope="session")
def require_postgres() -> str:
    """The URL of a PostgreSQL server on which databases may be made."""
    return _required(POSTGRES, "Postgres", 5432)


@pytest.fixture(scope="session")
def require_mariadb() -> str:
    """The URL of a MariaDB server on which databases may be made."""
    return _required(MARIADB, "MariaDB", 3306)


@pytest.fixture(scope="session")
def require_redis() -> str:
    """The URL of a Redis database in which keys may be written."""
    return _required(REDIS, "Redis", 6379)


@pytest.fixture(scope="session")
def require_rabbitmq() -> str:
    """The URL of a RabbitMQ virtual host in which queues may be declared."""
    return _required(RABBITMQ, "RabbitMQ", 5672)


@pytest.fixture(scope="session")
def require_binary() -> Callable[[str, str], str]:
    """Gives the path of a program, from its name and the Debian package that has it."""

    def find(name: str, package: str) -> str:
        found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
        if found is None:
            _missing(f"the program {name} is missing: apt-get install {package}")
        assert found is not None
        return found

    return find


@pytest.fixture(scope="session")
def new_postgres(require_postgres: str) -> Iterator[Callable[[], str]]:
    """Makes an empty database and gives its URL; all are dropped at the session's end."""
    import psycopg

    server = require_postgres.replace("+psycopg", "")
    made: list[str] = []

    def make() -> str:
        name = f"siftbell_test_{uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        made.append(name)
        return f"{require_postgres.rsplit('/', 1)[0]}/{name}"

    yield make
    with psycopg.connect(server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def one_postgres(new_postgres: Callable[[], str]) -> str:
    """The URL of a database that the tests of a session share."""
    return new_postgres()


@pytest.fixture
def empty_postgres(one_postgres: str) -> str:
    """The URL of a database that is empty; it is made so in a tenth of the time that a new one takes."""
    import psycopg

    with psycopg.connect(one_postgres.replace("+psycopg", ""), autocommit=True) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema)'").fetchall()
        for (schema,) in found:
            connection.execute(f"DROP SCHEMA {schema} CASCADE")
        connection.execute("CREATE SCHEMA public")
    return one_postgres


@pytest.fixture
def empty_mariadb(require_mariadb: str) -> Iterator[str]:
    """The URL of a MariaDB database that is empty; it is dropped afterwards."""
    import pymysql

    parts = urlsplit(require_mariadb)
    server = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "password": parts.password or ""}
    name = f"siftbell_test_{uuid4().hex}"

    def execute(statement: str) -> None:
        connection = pymysql.connect(**server)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)

    execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield parts._replace(path=f"/{name}").geturl()
    execute(f"DROP DATABASE {name}")


@pytest.fixture(params=["SQLite", "PostgreSQL", "MariaDB"])
def foreign_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of somebody else's, on each kind of server in turn."""
    if request.param == "SQLite":
        (tmp_path / "foreign.db").touch()
        return f"sqlite:///{tmp_path}/foreign.db"
    url: str = request.getfixturevalue("empty_postgres" if request.param == "PostgreSQL" else "empty_mariadb")
    return url


@pytest.fixture
def new_vhost(require_rabbitmq: str, require_binary: Callable[[str, str], str]) -> Iterator[str]:
    """The URL of a virtual host of the test's own on RabbitMQ."""
    control = require_binary("rabbitmqctl", "rabbitmq-server")
    host = f"siftbell-{uuid4().hex[:8]}"
    user = urlsplit(require_rabbitmq).username or "guest"
    for arguments in (["add_vhost", host], ["set_permissions", "-p", host, user, ".*", ".*", ".*"]):
        subprocess.run([control, *arguments], check=True, capture_output=True, timeout=60)
    yield urlsplit(require_rabbitmq)._replace(path=f"/{host}").geturl()
    subprocess.run([control, "delete_vhost", host], check=True, capture_output=True, timeout=60)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes an executable where the settings allow it; `#!python` and `{tmp}` in its text become what they are here."""
    monkeypatch.setenv("SIFTBELL_SCRIPTS", str(tmp_path))

    def write(text: str, name: str = "script") -> None:
        (tmp_path / name).write_text(text.replace("#!python", f"#!{sys.executable}").replace("{tmp}", str(tmp_path)))
        (tmp_path / name).chmod(0o755)

    return write
