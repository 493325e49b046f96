"""What the shop keeps: products with their reviews, and who looked at which product.

Blocking calls, one transaction each. Not here: HTTP (see `products`), and connections (see `database`).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from shop.database import Database, Row, Transaction

PRODUCTS = 100
REVIEWS = 20_000

_TABLES = (
    """CREATE TABLE IF NOT EXISTS products (
        id integer PRIMARY KEY, name text NOT NULL, price numeric(10,2) NOT NULL, description text NOT NULL,
        updated_at text NOT NULL, version integer NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS reviews (product_id integer NOT NULL, stars integer NOT NULL)",
    "CREATE TABLE IF NOT EXISTS product_views (product_id integer PRIMARY KEY, views integer NOT NULL)",
    """CREATE TABLE IF NOT EXISTS view_events (
        id {identity}, idempotency_key text NOT NULL UNIQUE, product_id integer NOT NULL, seq integer,
        received_at text NOT NULL, attempts integer NOT NULL DEFAULT 1)""",
    "CREATE INDEX IF NOT EXISTS view_events_of_product ON view_events (product_id, id)",
)

# There is no index on reviews.product_id, and that is on purpose: an aggregate over a whole table is the kind of
# query for which people want a cache.
_PRODUCT = """
    SELECT p.id, p.name, p.price, p.description, p.updated_at, p.version,
           count(r.stars) AS reviews, round(avg(r.stars), 2) AS rating
    FROM products p LEFT JOIN reviews r ON r.product_id = p.id
    WHERE p.id = :id
    GROUP BY p.id, p.name, p.price, p.description, p.updated_at, p.version"""

FIELDS = ("name", "price", "description")


class InvalidProduct(Exception):
    """The client's fault: says which field of the document is wrong and what is wanted."""


class VersionConflict(Exception):
    """If-Match named another version than the product has."""


@dataclass(frozen=True, slots=True)
class View:
    """One recorded look at a product. `attempts` above 1: the same Idempotency-Key had been here before."""

    product: int
    views: int
    attempts: int


class Catalogue:
    def __init__(self, database: Database, *, query_delay_s: float) -> None:
        self._database = database
        self._query_delay_s = query_delay_s

    def prepare(self) -> None:
        """Makes and fills the tables where they are missing; any number of replicas may do so at once."""
        dialect = self._database.dialect
        with self._database.transaction(write=True) as tx:
            tx.execute(dialect["lock_schema"])
            for statement in _TABLES:
                tx.execute(statement.format(**dialect))
            if self._database.is_postgresql:
                tx.execute("CREATE SEQUENCE IF NOT EXISTS product_queries")
            if tx.execute("SELECT 1 FROM products LIMIT 1"):
                return
            tx.execute(
                """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :products)
                INSERT INTO products (id, name, price, description, updated_at, version)
                SELECT i, 'Product ' || i, 10 + i, 'Thing number ' || i || ', made with care', :now, 1 FROM n""",
                products=PRODUCTS,
                now=_now(),
            )
            tx.execute("INSERT INTO product_views (product_id, views) SELECT id, 0 FROM products")
            tx.execute(
                """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :reviews)
                INSERT INTO reviews (product_id, stars) SELECT i % :products + 1, (i * 7 + i / 100) % 5 + 1 FROM n""",
                products=PRODUCTS,
                reviews=REVIEWS,
            )

    def products(self) -> list[Row]:
        with self._database.transaction(write=False) as tx:
            self._costly(tx)
            rows = tx.execute("SELECT id, name, price FROM products ORDER BY id")
        return [{**row, "price": _money(row["price"])} for row in rows]

    def product(self, product: int) -> Row | None:
        """The slow one: an aggregate over all reviews, and `query_delay_s` of waiting in the database."""
        with self._database.transaction(write=False) as tx:
            self._costly(tx)
            return _product(tx, product)

    def version(self, product: int) -> int | None:
        """Cheap: what a conditional request needs."""
        with self._database.transaction(write=False) as tx:
            rows = tx.execute("SELECT version FROM products WHERE id = :id", id=product)
        return int(rows[0]["version"]) if rows else None

    def update(self, product: int, changes: dict[str, str], *, expected_version: int | None = None) -> Row | None:
        """Changes the named fields and returns the product as a read right after would. Raises VersionConflict."""
        unchanged = "" if expected_version is None else "AND version = :expected_version"
        sets = "".join(f"{name} = :{name}, " for name in changes)
        with self._database.transaction(write=True) as tx:
            values: dict[str, Any] = {**changes, "id": product, "now": _now(), "expected_version": expected_version}
            # The names in `sets` come from FIELDS, never from a client.
            updated = tx.execute(
                f"UPDATE products SET {sets} updated_at = :now, version = version + 1"
                f" WHERE id = :id {unchanged} RETURNING version",
                **values,
            )
            # Still under the row's lock: no other write can come between the change and what is returned of it.
            row = _product(tx, product)
        if row is not None and not updated:
            raise VersionConflict(f"product {product} has version {row['version']}, not {expected_version}")
        return row

    def record_view(self, product: int, key: str | None, seq: int | None) -> View | None:
        """Counts a look, once per idempotency key; None where there is no such product.

        Event and counter are one transaction, so a repeated delivery can never be counted twice.
        """
        with self._database.transaction(write=True) as tx:
            counter = tx.execute(
                f"SELECT views FROM product_views WHERE product_id = :id {self._database.dialect['for_update']}",
                id=product,
            )
            if not counter:
                return None
            views = int(counter[0]["views"])
            event = tx.execute(
                """INSERT INTO view_events (idempotency_key, product_id, seq, received_at)
                VALUES (:key, :id, :seq, :now)
                ON CONFLICT (idempotency_key) DO UPDATE SET attempts = view_events.attempts + 1
                RETURNING attempts""",
                key=key or str(uuid.uuid4()),
                id=product,
                seq=seq,
                now=_now(),
            )
            attempts = int(event[0]["attempts"])
            if attempts == 1:
                views += 1
                tx.execute("UPDATE product_views SET views = :views WHERE product_id = :id", id=product, views=views)
        return View(product, views, attempts)

    def views(self, product: int, *, after: int, limit: int) -> Row | None:
        """The counter, and the events in the order in which they were committed, from `after` (an event's id) on."""
        with self._database.transaction(write=False) as tx:
            counter = tx.execute("SELECT views FROM product_views WHERE product_id = :id", id=product)
            if not counter:
                return None
            events = tx.execute(
                """SELECT id, idempotency_key, seq, received_at, attempts FROM view_events
                WHERE product_id = :id AND id > :after ORDER BY id LIMIT :limit""",
                id=product,
                after=after,
                limit=limit,
            )
        return {"product": product, "views": int(counter[0]["views"]), "events": events}

    def costly_queries(self) -> int | None:
        """How many costly queries PostgreSQL has answered, for all replicas together; None on SQLite."""
        if not self._database.is_postgresql:
            return None
        with self._database.transaction(write=False) as tx:
            row = tx.execute("SELECT last_value, is_called FROM product_queries")[0]
        return int(row["last_value"]) if row["is_called"] else 0

    def _costly(self, tx: Transaction) -> None:
        if self._query_delay_s > 0:
            tx.execute("SELECT pg_sleep(:delay)", delay=self._query_delay_s)
        if self._database.is_postgresql:
            tx.execute("SELECT nextval('product_queries')")


def changes_of(document: object, *, complete: bool) -> dict[str, str]:
    """The fields of a PUT (`complete`: all of them) or a PATCH. Raises InvalidProduct."""
    if not isinstance(document, dict):
        raise InvalidProduct("expected a JSON object with name, price and description")
    changes: dict[str, str] = {}
    for name in FIELDS:
        if name not in document:
            if complete:
                raise InvalidProduct(f"{name}: missing; PUT replaces the whole product, PATCH changes single fields")
            continue
        value = document[name]
        if name == "price":
            changes[name] = _price(value)
        elif isinstance(value, str) and 0 < len(value) <= 10_000 and "\0" not in value:
            changes[name] = value
        else:
            raise InvalidProduct(f"{name}: expected a text of 1 to 10000 characters")
    if not changes:
        raise InvalidProduct("nothing to change: expected name, price or description")
    return changes


def _price(value: object) -> str:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InvalidOperation
        # Rounded first: what is just below the limit must not be rounded to it.
        price = Decimal(_money(value))
        if not 0 <= price < 100_000_000:
            raise InvalidOperation
        return str(price)
    except InvalidOperation:
        raise InvalidProduct('price: expected an amount from 0 to 99999999.99, as in "19.90"') from None


def _product(tx: Transaction, product: int) -> Row | None:
    rows = tx.execute(_PRODUCT, id=product)
    if not rows:
        return None
    row = rows[0]
    rating = None if row["rating"] is None else float(row["rating"])
    return {**row, "price": _money(row["price"]), "rating": rating}


def _money(value: Any) -> str:
    return str(Decimal(str(value)).quantize(Decimal("0.01")))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
