"""The shop's backend: a product list, carts and visit counts kept in redis.

It holds one deliberate mistake, the kind that real shops ship: a diagnostic page
(/internal/diag) that nobody removed and that pastes its argument into a shell command.
"""

import json
import socket
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PASSWORD_FILE = "/etc/shop/db-password"
PRODUCTS = ["compass", "lantern", "rope", "sextant", "chart", "barometer"]


class Database:
    """As much of the redis protocol as the shop needs. One connection for one request."""

    def __init__(self):
        self.socket = socket.create_connection(("db", 6379), timeout=5)
        self.reader = self.socket.makefile("rb")
        with open(PASSWORD_FILE, encoding="ascii") as file:
            self.ask("AUTH", file.read().strip())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reader.close()
        self.socket.close()

    def ask(self, *words):
        parts = [str(word).encode() for word in words]
        message = b"*%d\r\n" % len(parts)
        for part in parts:
            message += b"$%d\r\n%s\r\n" % (len(part), part)
        self.socket.sendall(message)
        return self.reply()

    def reply(self):
        line = self.reader.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.reader.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return rest.decode()


class Shop(BaseHTTPRequestHandler):
    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/api/products":
            self.answer(PRODUCTS)
        elif url.path == "/api/visit":
            with Database() as db:
                self.answer({"visits": db.ask("INCR", "visits")})
        elif url.path == "/api/cart":
            with Database() as db:
                self.answer(db.ask("LRANGE", "cart:" + query.get("customer", "0"), 0, 9))
        elif url.path == "/internal/diag":
            self.diagnose(query.get("host", "db"))
        else:
            self.answer({"error": "not found"}, 404)

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        key = "cart:" + str(order["customer"])
        with Database() as db:
            db.ask("LPUSH", key, order["product"])
            db.ask("LTRIM", key, 0, 9)
        self.answer({"ok": True})

    def diagnose(self, host):
        # The mistake: `host` reaches a shell.
        done = subprocess.run(
            "getent hosts " + host, shell=True, capture_output=True, timeout=12, check=False
        )
        self.answer({"output": (done.stdout + done.stderr).decode(errors="replace")})

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", 8000), Shop).serve_forever()
