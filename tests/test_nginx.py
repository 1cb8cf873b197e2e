"""nginx in front of the service, configured as deploy/nginx.conf says."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from serving import serving
from tracerouted.http.negotiate import MOST_WAIT_S
from tracerouted.settings import Settings

CONFIGURATION = Path(__file__).resolve().parent.parent / "deploy" / "nginx.conf"
HOST = "lg.example.net"

#: A configuration around the one under test: one process, everything it writes in one folder.
AROUND = """
daemon off; master_process off; pid nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include {included};
}}
"""


@frozen
class Front:
    """The service, as seen through nginx."""

    port: int

    def begin(
        self, method: str, path: str, body: Any = None, peer: str = "127.0.0.1", **fields: str
    ) -> http.client.HTTPResponse:
        """Send a request from the address `peer`; the answer, of which only the head has been read."""
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, source_address=(peer, 0), context=unverified
        )
        content = None if body is None else json.dumps(body)
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        connection.request(method, path, content, {"Host": HOST, "Content-Type": "application/json", **names})
        return connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **more: str) -> tuple[int, Any]:
        """Status and content of an answer."""
        with closing(self.begin(method, path, body, **more)) as answer:
            text = answer.read().decode()
        return answer.status, json.loads(text) if text.startswith("{") else text


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """nginx before a service that lets every client create two traces a minute."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if nginx is None or shutil.which("openssl") is None or shutil.which("mtr-packet") is None:
        pytest.skip("nginx, openssl or mtr-packet is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={HOST}"]
    subprocess.run([*request, "-keyout", folder / "key", "-out", folder / "pem"], capture_output=True, check=True)
    (folder / "service").mkdir()
    settings = {"create_per_minute": "2", "trusted_proxies": "127.0.0.1/32", "allow_targets": "127.0.0.0/8"}
    with serving(folder / "service", **settings) as service:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = CONFIGURATION.read_text()
        for written, here in {
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{service.port};",
            "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
            "listen [::]:443 ssl http2;": "",
            f"/etc/ssl/{HOST}.": f"{folder}/",
        }.items():
            assert written in text
            text = text.replace(written, here)
        (folder / "tracerouted.conf").write_text(text)
        (folder / "nginx.conf").write_text(AROUND.format(included=folder / "tracerouted.conf"))
        command = [nginx, "-e", "stderr", "-p", str(folder), "-c", "nginx.conf"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert tested.returncode == 0, tested.stderr
        process = subprocess.Popen(command)
        try:
            while process.poll() is None:
                try:
                    Front(port).ask("GET", "/healthz")
                    break
                except ConnectionRefusedError:
                    pass
            yield Front(port)
        finally:
            process.terminate()
            process.wait()


def test_streams_are_passed_on_at_once(front: Front) -> None:
    """Events come through while their trace runs, long before nginx has a buffer full of them."""
    long = {"target": "127.0.0.1", "probes": 100, "interval_ms": 10000}
    with closing(front.begin("POST", "/traces", long, peer="127.0.0.2", Accept="text/event-stream")) as stream:
        seen = [stream.readline() for _ in range(3)]
        while seen[-1] != b"event: hop\n":
            seen.append(stream.readline())
            assert seen[-1]
        location = stream.headers["Location"]
        status, trace = front.ask("GET", location)
        front.ask("DELETE", location)
        rest = stream.read()

    assert (200, "running") == (status, trace["status"])
    assert b"event: end" in rest


def test_clients_are_told_apart(front: Front) -> None:
    """The quota is that of the address that connects to nginx, whatever it writes into X-Forwarded-For itself."""
    trace = {"target": "127.0.0.1", "probes": 1}
    answers = [
        front.ask("POST", "/traces", trace, peer="127.0.0.3", X_Forwarded_For=f"192.0.2.{n}")[0] for n in range(3)
    ]

    assert [202, 202, 429] == answers
    assert 202 == front.ask("POST", "/traces", trace, peer="127.0.0.4")[0]


def test_the_page_may_use_its_own_service(front: Front) -> None:
    """The page is there, and a request from it is not taken for one of a stranger's page."""
    trace = {"target": "127.0.0.1", "probes": 1}
    own, other = (
        front.ask("POST", "/traces", trace, peer="127.0.0.5", Origin=origin, Prefer="wait=10")
        for origin in (f"https://{HOST}", "https://elsewhere.example")
    )

    assert "<!doctype html>" in front.ask("GET", "/")[1].lower()
    assert (201, "completed") == (own[0], own[1]["status"])
    assert (403, "/problems/origin-not-allowed") == (other[0], other[1]["type"])


def test_its_patience_fits_the_service() -> None:
    """nginx waits for an answer longer than the service may take, and closes idle connections sooner than it."""

    def seconds(directive: str) -> int:
        (found,) = re.findall(rf"\b{directive} ([0-9]+)s;", CONFIGURATION.read_text())
        return int(found)

    assert seconds("proxy_read_timeout") > max(MOST_WAIT_S, Settings().heartbeat_s)
    assert seconds("keepalive_timeout") < Settings().keep_alive_s
