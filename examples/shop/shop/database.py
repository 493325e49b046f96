"""Two databases behind one small face: PostgreSQL for the cluster, a SQLite file for a laptop with nothing installed.

A transaction is an ordinary blocking call that belongs in a worker thread: once begun it runs to its end, so a client
that hangs up cannot leave a connection in the middle of something. SQL is written once, with `:name` parameters.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol
from urllib.parse import urlsplit

Row = dict[str, Any]

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class DatabaseUnavailable(Exception):
    """The database cannot be reached or does not answer in time. Whether a write happened is then not known."""


class Transaction(Protocol):
    def execute(self, sql: str, **values: object) -> list[Row]: ...


class Database(Protocol):
    @property
    def is_postgresql(self) -> bool: ...

    @property
    def dialect(self) -> Mapping[str, str]:
        """The few places where the two differ: `identity`, `for_update`, `lock_schema`."""
        ...

    def transaction(self, *, write: bool) -> Any:
        """A context manager that gives a Transaction, and commits unless an exception leaves it.

        Raises DatabaseUnavailable.
        """
        ...

    def close(self) -> None: ...


def connect(url: str) -> Database:
    """Opens nothing yet: the first transaction does. Raises ValueError for an unknown kind of URL."""
    scheme = urlsplit(url).scheme
    if scheme in ("postgresql", "postgres"):
        return Postgresql(url)
    if scheme == "sqlite" and url.startswith("sqlite:///"):
        return Sqlite(Path(url.removeprefix("sqlite:///")))
    raise ValueError(f"database {url!r}: expected postgresql://... or sqlite:///path/to/file")


class Postgresql:
    is_postgresql = True
    dialect = MappingProxyType(
        {
            "identity": "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
            "for_update": "FOR UPDATE",
            # Replicas start together, and CREATE TABLE IF NOT EXISTS alone may race with itself.
            "lock_schema": "SELECT pg_advisory_xact_lock(7230001)",
        }
    )

    def __init__(self, url: str) -> None:
        import psycopg
        from psycopg.rows import dict_row
        from psycopg_pool import ConnectionPool

        # A missing table is a database that came back empty.
        self._unavailable = (psycopg.OperationalError, psycopg.errors.UndefinedTable)
        self._pool: ConnectionPool[Any] = ConnectionPool(
            url,
            kwargs={
                "row_factory": dict_row,
                "connect_timeout": 4,
                "tcp_user_timeout": 3000,
                "options": "-c statement_timeout=5000",
            },
            min_size=0,
            max_size=10,
            timeout=5.0,
            # Short, so that the pool gives up soon and the next request tries anew: with the usual five minutes of
            # growing back-off a database that is back would go unnoticed for about as long as it was away.
            reconnect_timeout=1.0,
            check=ConnectionPool.check_connection,
            open=False,
        )

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Transaction]:
        try:
            self._pool.open()
            with self._pool.connection() as connection:
                yield _PostgresqlTransaction(connection)
        except self._unavailable as error:
            raise DatabaseUnavailable(f"PostgreSQL: {error}".strip()) from error

    def close(self) -> None:
        self._pool.close()


class _PostgresqlTransaction:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, sql: str, **values: object) -> list[Row]:
        cursor = self._connection.execute(_PARAMETER.sub(r"%(\1)s", sql.replace("%", "%%")), values)
        return cursor.fetchall() if cursor.description else []


class Sqlite:
    """One file, shared by as many processes as like (write-ahead log); a connection per thread."""

    is_postgresql = False
    dialect = MappingProxyType(
        {"identity": "INTEGER PRIMARY KEY AUTOINCREMENT", "for_update": "", "lock_schema": "SELECT 1"}
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._guard = threading.Lock()
        self._connections: list[sqlite3.Connection] = []

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Transaction]:
        try:
            connection = self._connection()
            # IMMEDIATE: a transaction that reads first and then writes could otherwise find that it may not.
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield _SqliteTransaction(connection)
            except BaseException:
                connection.rollback()
                raise
            connection.commit()
        except sqlite3.OperationalError as error:
            raise DatabaseUnavailable(f"SQLite file {self._path}: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is not None:
            return existing
        connection = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.create_function("pg_sleep", 1, time.sleep)
        with self._guard:
            self._connections.append(connection)
        self._local.connection = connection
        return connection

    def close(self) -> None:
        """To be called when no transaction runs any more."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, **values: object) -> list[Row]:
        return [dict(row) for row in self._connection.execute(sql, values).fetchall()]
