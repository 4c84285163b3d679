#!/usr/bin/env python3
"""A service behind the router: plain HTTP, nothing but Python's standard library.

Run it beside a Redis and the router (cargo run --release -- -c examples/service.json).
"""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A real application makes a random ticket for a session that has logged in, keeps it for half a
# minute, and takes it back when it is used.
TICKETS = {"let-me-in": "user_1"}
TITLES = {"books.1": "Moby-Dick", "books.2": "Middlemarch"}


def answer(path, body):
    if path == "/ticket":
        user = TICKETS.get(str(body["ticket"]))
        return {"status": "ok", "user_id": user} if user else {"status": "error"}
    book = body["subscription"]
    if path == "/subscribe":
        if book not in TITLES:
            return {"status": "error", "error": "No such book."}
        return {"status": "ok", "data": {"title": TITLES[book]}}
    if path == "/message":
        TITLES[book] = body["data"]["title"]
        return {"status": "ok", "data": {"saved_by": body["user_id"]}}
    return {"status": "ok"}


class Handler(BaseHTTPRequestHandler):
    # Connections stay open between calls, and an answer goes out at once: this server sends head
    # and body apart, and Nagle's algorithm would hold the body back.
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
