"""A small web page that says which task answered, and how often it was asked."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(os.environ.get("PORT", "8080"))
GREETING = os.environ.get("GREETING", "Hello from Homeport")
asked = 0


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        asked += self.path == "/"
        body = f"{GREETING}\nThis is {socket.gethostname()}, asked {asked} times.\n".encode()
        self.send_response(200 if self.path in ("/", "/healthy") else 404)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/healthy":
            print(self.address_string(), format % args, flush=True)


print(f"serving on port {PORT}", flush=True)
ThreadingHTTPServer(("", PORT), Page).serve_forever()
