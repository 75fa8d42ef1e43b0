"""A schema registry in memory, as much of Confluent's REST API as a serializer asks for: PORT.

POST /subjects/SUBJECT/versions and POST /subjects/SUBJECT answer a schema's id, GET /schemas/ids/ID its text. Ends with
its standard input, so it never outlives whoever started it.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

schemas = []
lock = threading.Lock()


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            if body["schema"] not in schemas:
                schemas.append(body["schema"])
            number = schemas.index(body["schema"]) + 1
        subject = self.path.split("/")[2]
        self.answer(200, {"subject": subject, "version": 1, "id": number, "schema": body["schema"]})

    def do_GET(self):
        number = self.path.split("?")[0].rsplit("/", 1)[-1]
        if number.isdigit() and 0 < int(number) <= len(schemas):
            self.answer(200, {"schema": schemas[int(number) - 1]})
        else:
            self.answer(404, {"error_code": 40403, "message": "schema not found"})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def end_with_standard_input():
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=end_with_standard_input, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Registry).serve_forever()
