"""`python readonly.py TARGET`: a tracking server that lets people read and nobody write.

Stands before a real MLflow server and answers 403 to every request that would change something, as
a proxy with read rights does. Prints its port, serves until killed.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Passes on what reads."""

    def do_GET(self) -> None:
        self._pass_on(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.split("?")[0].endswith("/search"):
            self._pass_on(body)
        else:
            self._answer(403, b'{"error_code": "PERMISSION_DENIED", "message": "read only"}')

    do_PATCH = do_PUT = do_DELETE = do_POST

    def _pass_on(self, body: bytes | None) -> None:
        request = urllib.request.Request(
            sys.argv[1] + self.path, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request) as response:
                self._answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            self._answer(error.code, error.read())

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
