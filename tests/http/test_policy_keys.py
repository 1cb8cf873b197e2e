"""API keys: the file, its changes while the service runs, and who is let in."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from fake_http import Service, finished_trace
from tracerouted.http import Policy
from tracerouted.http.cors import Origins
from tracerouted.http.keys import MOST_FILE_BYTES, Key, KeyRing, KeysFileError, bearer, new_key, parse_keys
from tracerouted.http.problems import ProblemError

ALICE, BOB = "a-key-of-alice", "a-key-of-bob"
_HEX = st.text("0123456789abcdefABCDEF", min_size=64, max_size=64)


def line(name: str, key: str) -> str:
    return f"{name} {sha256(key.encode()).hexdigest()}\n"


def bear(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A keys file with Alice's and Bob's."""
    path = tmp_path / "keys"
    path.write_text(line("alice", ALICE) + line("bob", BOB))
    return path


@pytest.fixture
def service(make_service: Callable[..., Service], file: Path) -> Service:
    """A service that wants one of those keys."""
    return make_service(lambda clock: Policy(keys=KeyRing(file, clock)))


def rewrite(path: Path, content: str | bytes) -> None:
    """Replace a file's content; its time of change differs even within one tick of the kernel's clock."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, ns=(before + 1, before + 1))


# --- the file ---


def test_parse() -> None:
    """Names and digests, with comments, blank lines, Windows line ends, a byte order mark, several keys of a name."""
    one, two, three = (sha256(text).digest() for text in (b"1", b"2", b"3"))
    content = (
        "\ufeff# who may\r\n\r\nalice  " + one.hex() + " # laptop\r\n\tbob\t" + two.hex().upper() + "\n"
        "alice " + three.hex() + "\nalice " + one.hex() + "\n# caf\u00e9"
    )
    assert (Key("alice", one), Key("bob", two), Key("alice", three)) == parse_keys(content.encode())


@pytest.mark.parametrize(
    "wrong",
    [
        "alice",
        "alice " + 63 * "0",
        "alice " + 65 * "0",
        "alice " + 64 * "g",
        "al ice " + 64 * "0",
        "-alice " + 64 * "0",
        65 * "a" + " " + 64 * "0",
        64 * "0",
        f"alice:{64 * '0'}",
        "alice my-secret-key",
    ],
)
def test_a_wrong_line(wrong: str) -> None:
    """What is no name and digest is refused by its number, and not shown: it might be a key."""
    with pytest.raises(KeysFileError) as refused:
        parse_keys(f"# first\nbob {64 * '0'}\n{wrong}\n".encode())
    assert "line 3 " in str(refused.value)
    assert wrong not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_key_belongs_to_one() -> None:
    """The same key under two names is refused: whose would its traces be?"""
    with pytest.raises(KeysFileError, match="line 2 has the digest of another name's key"):
        parse_keys((line("alice", ALICE) + line("bob", ALICE)).encode())


_LINES = st.lists(st.one_of(st.binary(max_size=90), st.builds(lambda n, h: f"{n} {h}".encode(), st.text(), _HEX)))


@given(_LINES.map(b"\n".join))
def test_no_file_breaks_the_parser(content: bytes) -> None:
    """Whatever is in a file, it is keys or the one error."""
    with suppress(KeysFileError):
        assert all(len(key.digest) == 32 and key.name.isascii() for key in parse_keys(content))


def test_new_keys_work() -> None:
    """A fresh key is 32 random bytes for a URL, and its line lets it in."""
    key, written = new_key("alice")
    other, _ = new_key("alice")
    assert key != other
    assert 43 == len(key)
    assert (Key("alice", sha256(key.encode()).digest()),) == parse_keys(written.encode())
    assert key.encode() == bearer(f"Bearer {key}".encode())


@pytest.mark.parametrize("name", ["", "a b", "#a", "a\n", "\u00e9", "a" * 65])
def test_no_name(name: str) -> None:
    """A name that the file could not hold is refused."""
    with pytest.raises(ValueError, match="a name has"):
        new_key(name)


# --- the field ---


@pytest.mark.parametrize("field", ["Bearer abc", "bearer abc", "BEARER   abc", " Bearer abc "])
def test_bearer(field: str) -> None:
    """The scheme's case and the spaces do not matter."""
    assert b"abc" == bearer(field.encode())


@pytest.mark.parametrize(
    "field",
    ["", "Bearer", "Bearer ", "abc", "Basic abc", "Bearer a b", "Bearer a, Bearer b", "Bearer " + 513 * "a"],
)
def test_no_bearer(field: str) -> None:
    """What is not one key is none."""
    assert bearer(field.encode()) is None


@given(st.binary())
def test_no_field_breaks_the_reader(field: bytes) -> None:
    """Any bytes are a key or none."""
    for value in (field, b"Bearer " + field):
        key = bearer(value)
        assert key is None or key in value


# --- who is let in ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/traces"),
        ("POST", "/traces"),
        ("OPTIONS", "/traces"),
        ("GET", "/traces/trace001"),
        ("HEAD", "/traces/trace001"),
        ("DELETE", "/traces/trace001"),
        ("GET", "/traces/trace001/events"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nope"),
        ("GET", "/%68ealthz"),
        ("GET", "//healthz/../traces"),
        ("GET", f"/traces?key={ALICE}&access_token={ALICE}"),
    ],
)
def test_a_key_is_wanted(service: Service, method: str, path: str) -> None:
    """Without a key in its field nothing is told, found or done: 401 with a challenge."""
    service.ask("POST", "/traces", {**bear(ALICE), "Content-Type": "application/json"}, b'{"target": "example.net"}')
    answer = service.ask(method, path)
    if path.startswith("//"):
        assert 404 == answer.status
        return
    assert (401, 'Bearer realm="tracerouted"') == (answer.status, answer.headers["www-authenticate"])
    if method != "HEAD":
        assert "unauthorized" == answer.type
    assert ["trace001"] == list(service.engine.jobs)


@pytest.mark.parametrize(
    "authorization", ["Bearer nope", f"Basic {ALICE}", "Bearer " + line("alice", ALICE).split()[1]]
)
def test_a_wrong_key(service: Service, authorization: str) -> None:
    """A wrong key, or the digest in its stead, is 401 saying so."""
    answer = service.get("/traces", Authorization=authorization)
    assert (401, "unauthorized") == (answer.status, answer.type)
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_open(service: Service, path: str) -> None:
    """Probes of an orchestrator have no key."""
    assert 200 == service.get(path).status


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/static/1/app.js", 404), ("/docs", 200)])
def test_pages_are_open(service: Service, path: str, status: int) -> None:
    """A browser asks for a page and its files without a key. (This site has no looking glass: it was looked for.)"""
    assert status == service.get(path).status


def test_every_key_is_let_in(service: Service) -> None:
    """The first and the last key of the file work on every method."""
    for key in (ALICE, BOB):
        created = service.post({"target": "example.net"}, **bear(key))
        assert 202 == created.status
        path = created.headers["location"]
        assert 200 == service.get(path, **bear(key)).status
        assert 204 == service.ask("DELETE", path, bear(key)).status


def test_the_list_is_ones_own(service: Service) -> None:
    """Each key's name sees the traces it made; a link to the next page stays among them."""
    made = {
        key: [service.post({"target": "example.net"}, **bear(key)).json["id"] for _ in range(3)]
        for key in (ALICE, BOB)
    }
    for key, ids in made.items():
        first = service.get("/traces?limit=2", **bear(key)).json
        rest = service.get(f"/traces?limit=2&cursor={first['next_cursor']}", **bear(key)).json
        assert ids[::-1] == [trace["id"] for trace in first["traces"] + rest["traces"]]
        assert rest["next_cursor"] is None
    assert ["alice"] * 3 + ["bob"] * 3 == [job.owner for job in service.engine.jobs.values()]


def test_the_id_is_the_capability(service: Service) -> None:
    """Who was given a trace's id may read and delete it with any key."""
    path = service.post({"target": "example.net"}, **bear(ALICE)).headers["location"]
    assert 200 == service.get(path, **bear(BOB)).status
    assert 204 == service.ask("DELETE", path, bear(BOB)).status
    assert 404 == service.get(path, **bear(ALICE)).status


def test_without_keys_the_list_is_everybodys(make_service: Callable[..., Service]) -> None:
    """A service without keys knows no owners; a key sent to it changes nothing."""
    service = make_service()
    finished_trace(service)
    service.post({"target": "example.net"}, **bear(ALICE))
    assert 2 == len(service.get("/traces", **bear(BOB)).json["traces"])
    assert [None, None] == [job.owner for job in service.engine.jobs.values()]


# --- a file that changes ---


def test_a_change_counts_within_a_second(service: Service, file: Path) -> None:
    """A key taken out is refused and a new one let in, one second later at the latest."""
    assert 200 == service.get("/traces", **bear(BOB)).status
    rewrite(file, line("alice", ALICE) + line("carol", "hers"))
    service.clock.advance(0.999)
    assert 200 == service.get("/traces", **bear(BOB)).status
    service.clock.advance(0.001)
    assert 401 == service.get("/traces", **bear(BOB)).status
    assert 200 == service.get("/traces", **bear("hers")).status
    assert 200 == service.get("/traces", **bear(ALICE)).status


def test_a_change_of_the_same_size_counts(service: Service, file: Path) -> None:
    """A digest changed in place is found by the file's time."""
    rewrite(file, line("alice", ALICE) + line("bob", "new"))
    service.clock.advance(1)
    assert (401, 200) == tuple(service.get("/traces", **bear(key)).status for key in (BOB, "new"))


def test_the_file_is_looked_at_once_a_second(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many requests come, the file system is asked once a second."""
    clock = Clock()
    ring = KeyRing(file, clock)
    looks: list[Path] = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path: looks.append(path) or stat(path))
    for _ in range(100):
        clock.advance(0.125)
        ring.owner(f"Bearer {ALICE}".encode())
    assert 12 == len(looks)


def test_a_file_put_in_its_place_counts(service: Service, file: Path) -> None:
    """A file moved over the old one counts even where time and size are the same."""
    status = file.stat()
    new = file.with_name("new")
    new.write_text(line("alice", ALICE) + line("bob", "new"))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(file)
    service.clock.advance(1)
    assert (401, 200) == tuple(service.get("/traces", **bear(key)).status for key in (BOB, "new"))


@pytest.mark.parametrize(
    "content", [b"alice secret\n", b"\0", (f"# {'x' * 98}\n" * (MOST_FILE_BYTES // 100)).encode() + b"alice"]
)
def test_a_broken_change_changes_nothing(
    service: Service, file: Path, log: list[dict[str, Any]], content: bytes
) -> None:
    """The keys read before stay when the file breaks; the log says so once, and not what is in it."""
    good = file.read_bytes()
    rewrite(file, content)
    for _ in range(3):
        service.clock.advance(1)
        assert 200 == service.get("/traces", **bear(ALICE)).status
    (error,) = [event for event in log if event["log_level"].name == "error"]
    assert (str(file), 2) == (error["path"], error["count"])
    assert "secret" not in repr(error)
    rewrite(file, good + line("carol", "hers").encode())
    service.clock.advance(1)
    assert 200 == service.get("/traces", **bear("hers")).status


def test_a_file_gone_changes_nothing(service: Service, file: Path, log: list[dict[str, Any]]) -> None:
    """Nor does one that is not there for a while; the log says it is gone, and that it is back."""
    good = file.read_bytes()
    file.unlink()
    for _ in range(3):
        service.clock.advance(1)
        assert 200 == service.get("/traces", **bear(ALICE)).status
    rewrite(file, good + line("carol", "hers").encode())
    service.clock.advance(1)
    assert 200 == service.get("/traces", **bear("hers")).status
    assert ["error", "info"] == [e["log_level"].name for e in log if e.get("log_namespace", "").endswith("keys")]


def test_the_last_key_can_be_taken_out(service: Service, file: Path, log: list[dict[str, Any]]) -> None:
    """An empty file lets nobody in, and the log warns of it."""
    rewrite(file, "# nobody\n")
    service.clock.advance(1)
    assert 401 == service.get("/traces", **bear(ALICE)).status
    assert ["warn"] == [event["log_level"].name for event in log if "no API key" in event.get("log_format", "")]


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo, lambda path: path.write_text("alice\n")])
def test_a_start_needs_a_good_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Missing, a folder, a pipe (which is not waited for) or broken: the one error, at once."""
    make(tmp_path / "keys")
    with pytest.raises(KeysFileError):
        KeyRing(tmp_path / "keys", Clock())


def test_all_keys_are_compared(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long an answer takes does not tell which key it was: each is compared, in constant time."""
    compared: list[bytes] = []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return known == given

    monkeypatch.setattr("tracerouted.http.keys.compare_digest", compare)
    ring = KeyRing(file, Clock())
    assert "alice" == ring.owner(f"Bearer {ALICE}".encode())
    assert 2 == len(compared)
    with pytest.raises(ProblemError):
        ring.owner(b"Bearer nope")
    assert 4 == len(compared)


def test_keys_are_not_logged(service: Service, file: Path, log: list[dict[str, Any]]) -> None:
    """Neither a good nor a bad key comes into the log, not even with a fault, nor into an answer."""
    service.engine.refuse = ZeroDivisionError("a fault")
    answers = [
        service.post({"target": "example.net"}, **bear(ALICE)),
        service.get("/traces", **bear("not-a-good-key")),
        service.get("/traces/nope", **bear(ALICE)),
    ]
    rewrite(file, "alice " + ALICE)
    service.clock.advance(1)
    answers.append(service.get("/traces", **bear(ALICE)))
    assert [500, 401, 404, 200] == [answer.status for answer in answers]
    said = repr(log) + "".join(e["log_failure"].getTraceback() for e in log if "log_failure" in e)
    said += repr(answers)
    assert ALICE not in said
    assert "not-a-good-key" not in said


def test_a_page_elsewhere_can_send_its_key(make_service: Callable[..., Service], file: Path) -> None:
    """A preflight, which has no key, is answered; a refusal for want of a key can be read by the page."""
    origin = "https://lg.example.net"
    service = make_service(lambda clock: Policy(keys=KeyRing(file, clock), origins=Origins((origin,))))
    asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    preflight = service.ask("OPTIONS", "/traces", asking)
    assert 204 == preflight.status
    assert "Authorization" in preflight.headers["access-control-allow-headers"].split(", ")
    refused = service.get("/traces", Origin=origin)
    assert (401, origin) == (refused.status, refused.headers["access-control-allow-origin"])
    assert 401 == service.ask("OPTIONS", "/traces", {**asking, "Origin": "https://other.example"}).status
    assert 200 == service.get("/traces", Origin=origin, **bear(ALICE)).status
