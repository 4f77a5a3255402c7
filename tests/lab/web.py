"""A real server's web server: answers who it is and which addresses the connection had.

Runs in a host, as ``python web.py``; the standard library alone.
"""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST, PORT = "0.0.0.0", 80


class Answer(BaseHTTPRequestHandler):
    """Answers every GET with JSON: ``server``, ``destination`` and ``client``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, and close: one request is one connection to balance."""
        body = json.dumps(
            {
                "server": socket.gethostname(),
                "destination": self.connection.getsockname()[0],
                "client": self.client_address[0],
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Takes bursts of connections."""

    daemon_threads = True
    request_queue_size = 512

    def server_bind(self) -> None:
        """Bind without asking the resolver for this host's name; also where a server that has
        just ended has left connections behind (TIME-WAIT).
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        socket.socket.bind(self.socket, self.server_address)
        self.server_name, self.server_port = HOST, PORT


if __name__ == "__main__":
    Server((HOST, PORT), Answer).serve_forever()
