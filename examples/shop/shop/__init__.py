"""The example shop: `products`, a service over a database, and `storefront`, a page that is made of its answers.

(`targets` is a helper of the example's Prometheus.)

Neither knows that there is a cache: they speak plain HTTP/1.1 and would run the same without one. The only trace is
that the storefront reads the response field `Pulse-Staleness`, because it wants to tell its visitors how old a price
may be.

    python3 -m shop products   --listen :8080 --database postgresql://shop@localhost/shop
    python3 -m shop storefront --listen :8081 --products-url http://localhost:8080
"""
