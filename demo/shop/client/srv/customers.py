"""Customers of the shop: a steady, varied load on http://web.

Every second deals one shuffled deck that holds each kind of visit, so that the load differs
from moment to moment and yet leaves nothing out for long.
"""

import json
import random
import sys
import time
from http.client import HTTPConnection

PRODUCTS = ["compass", "lantern", "rope", "sextant", "chart", "barometer"]
DECK = ["/"] * 4 + ["/style.css"] * 3 + ["/about.html", "/missing.html"] + (
    ["/api/products"] * 2 + ["/api/visit"] * 3 + ["cart", "order", "order"]
)


def visit(kind, chance):
    connection = HTTPConnection("web", 80, timeout=5)
    try:
        customer = chance.randrange(50)
        if kind == "order":
            order = json.dumps({"customer": customer, "product": chance.choice(PRODUCTS)})
            connection.request("POST", "/api/cart", body=order)
        elif kind == "cart":
            connection.request("GET", f"/api/cart?customer={customer}")
        else:
            connection.request("GET", kind)
        connection.getresponse().read()
    finally:
        connection.close()


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    chance = random.Random(seed)
    print(f"customers arrive (seed {seed})", flush=True)
    served = 0
    while True:
        second = time.monotonic() + 1
        chance.shuffle(DECK)
        for kind in DECK:
            try:
                visit(kind, chance)
                served += 1
            except OSError:
                time.sleep(0.2)  # the shop is restarting
            time.sleep(chance.uniform(0.01, 0.05))
        print(f"{served} visits", flush=True)
        time.sleep(max(0, second - time.monotonic()))


main()
