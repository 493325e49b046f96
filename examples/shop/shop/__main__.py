"""Starts one of the services. Every flag has a variable of the environment beside it; the flag wins."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from aiohttp import web

from shop import products, storefront, targets


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        host, port = _address(options.listen)
        if options.service == "products":
            app = products.application(
                database=options.database, query_delay_s=options.query_delay_s, cache_control=options.cache_control
            )
        elif options.service == "storefront":
            app = storefront.application(products_url=options.products_url)
        else:
            app = targets.application(api_url=options.api_url)
    except ValueError as error:
        print(f"shop {options.service}: {error}", file=sys.stderr)
        return 2
    web.run_app(app, host=host, port=port, access_log=None, print=None, shutdown_timeout=5, keepalive_timeout=75)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shop", description=__doc__)
    services = parser.add_subparsers(dest="service", required=True)
    for name, about in (
        ("products", "the JSON API over a database"),
        ("storefront", "the pages"),
        ("targets", "what Prometheus is to scrape"),
    ):
        service = services.add_parser(name, help=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        service.add_argument("--listen", default=_env("LISTEN", ":8080"), help="[HOST]:PORT; no host: all addresses")
        if name == "products":
            service.add_argument(
                "--database",
                default=_env("DATABASE_URL", "sqlite:///shop.sqlite"),
                help="postgresql://... or sqlite:///FILE",
            )
            service.add_argument(
                "--query-delay-s",
                type=float,
                default=_env("QUERY_DELAY_S", "0.05"),
                help="seconds that a read of products waits in the database: stands for the joins of a real catalogue",
            )
            service.add_argument(
                "--cache-control",
                default=_env("CACHE_CONTROL", "") or None,
                help="Cache-Control of product representations; without it the field is not sent",
            )
        elif name == "storefront":
            service.add_argument(
                "--products-url", default=_env("PRODUCTS_URL", "http://localhost:8080"), help="where products is"
            )
        else:
            service.add_argument(
                "--api-url", default=_env("API_URL", "https://kubernetes.default.svc"), help="Kubernetes"
            )
    return parser


def _env(name: str, default: str) -> str:
    return os.environ.get(name) or default


def _address(listen: str) -> tuple[str | None, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"--listen {listen!r}: expected [HOST]:PORT")
    return host.strip("[]") or None, int(port)


if __name__ == "__main__":
    sys.exit(main())
