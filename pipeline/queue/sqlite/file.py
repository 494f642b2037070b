"""Opens the SQLite file of a queue: its form, its transactions, its errors in plain words, and its safety across forks."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from kombu.exceptions import KombuError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLICATION: Final = 0x53424C51
"""SQLite's application_id of a queue file: the letters SBLQ."""

SCHEMA: Final = 1
"""SQLite's user_version of the tables below. Raise it with every change of them."""

WAL_LIMIT: Final = 16 * 1024 * 1024
"""Bytes to which the write-ahead log is cut back once its pages are in the file."""

LOGGED_PAGES: Final = 4000
"""Pages in the write-ahead log at which they are put into the file: those that change again and again are put there once.

So many are a little less than `WAL_LIMIT`, so that the log is written over, and not cut back to grow again.
"""

_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    envelope TEXT NOT NULL,
    body BLOB NOT NULL,
    expires REAL,
    owner INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    returns INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS messages_ready ON messages (queue, priority DESC, id) WHERE owner = 0;
CREATE INDEX IF NOT EXISTS messages_claimed ON messages (owner) WHERE owner > 0;
CREATE INDEX IF NOT EXISTS messages_expiring ON messages (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY AUTOINCREMENT, pid INTEGER NOT NULL, since REAL NOT NULL);
CREATE TABLE IF NOT EXISTS exchanges (name TEXT PRIMARY KEY, type TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY,
    owner INTEGER NOT NULL,
    auto_delete INTEGER NOT NULL,
    ttl REAL,
    unused_for REAL,
    used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bindings (
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    queue TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, queue)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS bindings_queue ON bindings (queue);
CREATE TABLE IF NOT EXISTS consumers (
    queue TEXT NOT NULL,
    owner INTEGER NOT NULL,
    tag TEXT NOT NULL,
    PRIMARY KEY (queue, owner, tag)
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""

_WORDS: Final = {
    sqlite3.SQLITE_BUSY: "another program kept it locked for longer than {wait:g} s",
    sqlite3.SQLITE_LOCKED: "another program kept it locked for longer than {wait:g} s",
    sqlite3.SQLITE_FULL: "no space is left: free some on its disk",
    sqlite3.SQLITE_IOERR: "its disk refuses to read or write: look at its free space and its health",
    sqlite3.SQLITE_READONLY: "it may not be written by this user: look at the rights of the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it may not be opened by this user: look at the rights of the file and its directory",
    sqlite3.SQLITE_CORRUPT: "it is damaged: stop everything that uses it, keep a copy, and restore or remove it",
}


class QueueFileError(OperationalError):
    """The file cannot be read or written now, and nothing of the attempted change was stored; trying again may help."""


class WrongQueueFileError(KombuError):
    """The file is not a queue that this release can use; trying again does not help."""


_files: weakref.WeakSet[QueueFile] = weakref.WeakSet()
_files_lock = threading.RLock()


class QueueFile:
    """One SQLite handle on the file at an absolute `path`, made with its directory (0600, 0700) when it is not there.

    May be used from any thread: transactions follow one another. The handle is opened at the first use, closed before
    every fork of the process and opened again by whoever uses it next, parent or child: SQLite's locks do not survive
    a fork. With `durable`, a committed change has been fsynced; without, a power cut may undo the last changes, never
    a durable one before them. A lock of somebody else's is waited for at most `busy_timeout` seconds.
    """

    def __init__(self, path: Path, *, durable: bool, busy_timeout: float) -> None:
        self.path = path
        self._synchronous = "FULL" if durable else "NORMAL"
        self._busy_timeout = busy_timeout
        self._lock = threading.RLock()
        self._handle: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._ended: str | None = None  # why it is of no use any more
        with _files_lock:
            _files.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Hand out the handle for single SELECTs; raises QueueFileError, or WrongQueueFileError at the first use."""
        with self._lock, self._plain_words():
            yield self._opened()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hand out the handle inside one write transaction: committed at the end, undone by any exception."""
        with self._lock, self._plain_words():
            handle = self._opened()
            handle.execute("BEGIN IMMEDIATE")
            try:
                yield handle
                handle.execute("COMMIT")
            finally:
                if handle.in_transaction:
                    with suppress(sqlite3.Error):  # the first error is the one to tell; closing undoes what is left
                        handle.execute("ROLLBACK")

    def version(self) -> int:
        """Return a number that changes whenever another handle, of this or another process, has committed."""
        with self.reading() as handle:
            number: int = handle.execute("PRAGMA data_version").fetchone()[0]
            return number

    def close(self) -> None:
        """Close for good; later uses raise QueueFileError."""
        with self._lock:
            self._ended = "this connection to the queue is closed"
            self._shut()
        with _files_lock:
            _files.discard(self)

    def _shut(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _opened(self) -> sqlite3.Connection:
        if self._ended is None and self._identity is not None and self._found() != self._identity:
            self._shut()  # what is written to a file without a name is lost
            self._ended = "was removed or replaced while in use; connect again"
        if self._ended is not None:
            raise QueueFileError(f"{self.path}: {self._ended}")
        if self._handle is None:
            self._handle = self._open()
            self._identity = self._found()
        return self._handle

    def _found(self) -> tuple[int, int] | None:
        with suppress(FileNotFoundError):
            status = self.path.stat()
            return status.st_dev, status.st_ino
        return None

    def _open(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 35):
            raise WrongQueueFileError(f"the queue needs SQLite 3.35; this Python has {sqlite3.sqlite_version}")
        make_private(self.path)
        handle = sqlite3.connect(self.path, timeout=self._busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            self._recognise(handle)
            self._use_wal(handle)
            handle.execute(f"PRAGMA synchronous = {self._synchronous}")
            handle.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
            handle.execute(f"PRAGMA wal_autocheckpoint = {LOGGED_PAGES}")
            handle.execute("PRAGMA secure_delete = FAST")  # Debian's SQLite writes zeros over each page that it frees
        except BaseException:
            handle.close()
            raise
        return handle

    def _recognise(self, handle: sqlite3.Connection) -> None:
        """Make the tables in an empty file; refuse one that holds something else."""
        try:
            handle.execute("BEGIN")  # one view of all three, while another process may be making the tables
            application = handle.execute("PRAGMA application_id").fetchone()[0]
            schema = handle.execute("PRAGMA user_version").fetchone()[0]
            filled = handle.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            handle.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_NOTADB:
                raise
            raise WrongQueueFileError(f"{self.path}: is not an SQLite file; choose another path") from error
        if (application, schema) == (APPLICATION, SCHEMA):
            return
        if application == APPLICATION:
            raise WrongQueueFileError(
                f"{self.path}: has schema {schema}, this release of siftbell reads {SCHEMA}; "
                "drain it with the release that wrote it, or choose another path"
            )
        if filled or application or schema:
            raise WrongQueueFileError(f"{self.path}: is an SQLite file of something else; choose another path")
        handle.executescript(_TABLES)

    def _use_wal(self, handle: sqlite3.Connection) -> None:
        """Switch to the write-ahead log. SQLite does not wait for other openers here, so this does, as long."""
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                handle.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def _plain_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            words = _WORDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "the statement failed")
            raise QueueFileError(f"{self.path}: {words.format(wait=self._busy_timeout)} (SQLite: {error})") from error
        except OSError as error:
            raise QueueFileError(f"{self.path}: {error.strerror or error}") from error

    def before_fork(self) -> None:
        """Wait for the running transaction and close the handle."""
        self._lock.acquire()
        self._shut()

    def after_fork_in_parent(self) -> None:
        """Let the file be used again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Let the file be used again."""
        self._lock = threading.RLock()


def make_private(path: Path) -> None:
    """Create the file empty with mode 0600, and its missing directories with 0700; leave alone what is there.

    A file that exists is not opened: closing it again would drop the locks that this process holds through SQLite.
    """
    for directory in reversed([place for place in path.parents if not place.exists()]):
        directory.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _before_fork() -> None:
    _files_lock.acquire()
    for file in _files:
        file.before_fork()


def _after_fork_in_parent() -> None:
    for file in _files:
        file.after_fork_in_parent()
    _files_lock.release()


def _after_fork_in_child() -> None:
    global _files_lock  # noqa: PLW0603 - a lock taken by the parent's thread is of no use in the child
    for file in _files:
        file.after_fork_in_child()
    _files_lock = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
