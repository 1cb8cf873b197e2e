"""A bare Klein application: what the framework itself can do, to compare our service with.

It answers GET /traces/<id> with a document made once, and POST /traces by reading the JSON and answering with JSON.
Settings: port, document, parse_forms (twisted.web's default, true, reads a body a second time as a form).
"""

from __future__ import annotations

import json
import sys
from typing import Any

from klein import Klein
from twisted.internet import reactor as _reactor
from twisted.web.server import Site

from . import arguments

reactor: Any = _reactor
app = Klein()


@app.route("/traces/<trace_id>", methods=["GET"])
def read(request: Any, trace_id: str) -> bytes:
    """A finished document."""
    request.setHeader(b"Content-Type", b"application/json")
    return DOCUMENT


@app.route("/traces", methods=["POST"])
def create(request: Any) -> bytes:
    """Read the request, answer with what was read."""
    body = json.loads(request.content.read())
    request.setResponseCode(202)
    request.setHeader(b"Content-Type", b"application/json")
    return json.dumps({"id": "0", "status": "queued", "request": body}).encode()


DOCUMENT = arguments().get("document", "{}").encode()


def main() -> None:
    """Serve until standard input ends."""
    site = Site(app.resource(), parsePOSTFormSubmission=arguments().get("parse_forms", True))
    reactor.listenTCP(arguments()["port"], site, interface="127.0.0.1", backlog=1024)
    reactor.callWhenRunning(lambda: print('{"ready": true}', flush=True))
    reactor.callInThread(lambda: (sys.stdin.read(), reactor.callFromThread(reactor.stop)))
    reactor.run()


if __name__ == "__main__":
    main()
