"""Write-through across replicas, and write-behind through trouble."""

from __future__ import annotations

import http.client
import signal
import threading
import time
from collections import defaultdict

from containers import send
from deployed_shop import HOST, Shop, elapsed
from kube import wait_for
from traffic import request


def test_an_acknowledged_write_is_never_older_elsewhere_than_the_bound_says(shop: Shop) -> None:
    sidecars = shop.sidecars()
    for base in sidecars:
        shop.get("/products/21", base)
    worst_s = 0.0
    for turn in range(30):
        price = f"{turn + 1}.00"
        answer = shop.put(21, price, sidecars[turn % 3])
        assert answer.status == 200
        acknowledged = time.monotonic()
        current: set[str] = set()
        while len(current) < 3:
            for base in sidecars:
                asked = time.monotonic()
                read = shop.get("/products/21", base)
                if read.json["price"] == price:
                    current.add(base)
                else:
                    assert read.bound_s is not None
                    stale_s = asked - acknowledged
                    worst_s = max(worst_s, stale_s)
                    assert stale_s <= read.bound_s, f"older than it says: {stale_s:.3f} s, said {read.bound_s} s"
                    assert base not in current, "went back to an older value"
            assert elapsed(acknowledged) < 10
    print(f"an old value was read at most {worst_s * 1000:.0f} ms after the write was acknowledged")


def test_the_writer_reads_its_own_write_from_the_cache(shop: Shop) -> None:
    base = shop.sidecars()[0]
    shop.get("/products/22", base)
    assert shop.put(22, "5.55", base).status == 200
    read = shop.get("/products/22", base)
    assert read.json["price"] == "5.55"


def test_writes_that_outlive_a_stopped_database(shop: Shop) -> None:
    before = int(shop.query("select count(*) from view_events where product_id = 31"))
    base = shop.sidecars()[0]
    shop.stop_database()
    try:
        for seq in range(100):
            answer = shop.view(31, seq, base)
            assert answer.status == 202
            assert "pending" in answer.headers["pulse-staleness"]
    finally:
        shop.start_database()
    wait_for(
        "all views in the database",
        lambda: int(shop.query("select count(*) from view_events where product_id = 31")) == before + 100,
        timeout_s=60,
    )
    order = shop.query(f"select seq from view_events where product_id = 31 order by id offset {before}").split()
    assert order == [str(seq) for seq in range(100)]


def test_ten_thousand_acknowledged_writes_survive_a_sidecar_that_is_killed_three_times(shop: Shop) -> None:
    clients, each = 10, 1000
    victim = shop.pods()[0]
    base = f"http://{victim['status']['podIP']}:15080"
    acknowledged: dict[int, list[int]] = defaultdict(list)
    done = threading.Event()
    count = [0] * clients

    def client(number: int) -> None:
        """Its own product, always through the victim: the order of its writes is known."""
        product, seq = 40 + number, 0
        connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=10)
        while len(acknowledged[product]) < each:
            try:
                connection.request(
                    "POST",
                    f"/products/{product}/views",
                    f'{{"seq": {seq}}}',
                    {**HOST, "Content-Type": "application/json"},
                )
                response = connection.getresponse()
                response.read()
                if response.status == 202:
                    acknowledged[product].append(seq)
            except (OSError, http.client.HTTPException):
                connection.close()
                done.wait(0.2)
            seq += 1
            count[number] = len(acknowledged[product])
        connection.close()

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for kill in range(1, 4):
        wait_for(f"enough writes for kill {kill}", lambda kill=kill: sum(count) >= 2000 * kill, timeout_s=150)
        name = victim["metadata"]["name"]
        send(shop.kube.get("pod", name, "shop"), "pulsecache", signal.SIGKILL)
    for thread in threads:
        thread.join(200)
    done.set()
    assert sum(count) == clients * each

    def arrived() -> bool:
        told = request("GET", f"{base.replace(':15080', ':15090')}/metrics").body.decode()
        return 'pulsecache_pending_writes{policy="shop/products"} 0.0' in told

    wait_for("no pending write left", arrived, timeout_s=180, every_s=1.0)
    for product, sent in acknowledged.items():
        rows = shop.query(f"select seq from view_events where product_id = {product} order by id").split()
        found = [int(row) for row in rows]
        assert set(sent) <= set(found), f"product {product} lost {sorted(set(sent) - set(found))[:10]}"
        assert found == sorted(found), f"product {product}: out of order"
