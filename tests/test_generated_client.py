"""A client that openapi-python-client makes of the contract alone drives the service."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from netsim import Lab
from tracerouted.http.contract import read_contract
from web.daemon import daemon

PACKAGE = "generated_tracerouted"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The generated package, importable; its generator has nothing to complain about."""
    programs = Path(sys.executable).parent
    program = shutil.which("openapi-python-client", path=programs)
    if program is None:
        pytest.skip("no openapi-python-client: pip install openapi-python-client")
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.yaml").write_text(yaml.safe_dump(read_contract()))
    done = subprocess.run(
        [
            program,
            "generate",
            "--path",
            "openapi.yaml",
            "--meta",
            "none",
            "--output-path",
            PACKAGE,
            "--fail-on-warning",
        ],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},  # it formats with ruff
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module(PACKAGE)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def api(internet: Lab, generated: Any) -> Iterator[Any]:
    """Call an operation by its name: `api("read_trace", trace_id)`; the answer has `status_code` and `parsed`."""
    with daemon() as address, generated.Client(base_url=address, raise_on_unexpected_status=True) as client:

        def call(operation: str, *arguments: Any, tag: str = "traces", **fields: Any) -> Any:
            module = importlib.import_module(f"{PACKAGE}.api.{tag}.{operation}")
            return module.sync_detailed(*arguments, client=client, **fields)

        yield call


@pytest.fixture(scope="module")
def models(generated: Any) -> Any:
    return importlib.import_module(f"{PACKAGE}.models")


@pytest.fixture
def trace(api: Any, models: Any, lab: Lab) -> Any:
    """A trace of the plain path of ten routers, just created."""
    body = models.TraceRequest(target=lab.address("plain", "ipv4"), probes=1)
    created = api("create_trace", body=body)
    assert 202 == created.status_code
    assert created.headers["Location"] == created.parsed.links.self_
    return created.parsed


def test_poll(api: Any, models: Any, trace: Any, lab: Lab) -> None:
    """Reading with a wait answers with the whole finished trace, as objects of the types in the contract."""
    read = api("read_trace", trace.id, prefer="wait=30")
    assert 200 == read.status_code
    ended = read.parsed
    assert (models.Status.COMPLETED, models.StopReason.REACHED, True) == (
        ended.status,
        ended.stop_reason,
        ended.reached,
    )
    assert lab.address("plain", "ipv4") == ended.hops[-1].responders[0].address
    assert list(range(1, 12)) == [hop.ttl for hop in ended.hops]
    assert isinstance(ended.hops[0].probes[0].rtt_ms, float)
    assert ended.hops[0].stats.stddev_ms is None


def test_a_request_shown_can_be_sent_again(api: Any, models: Any, trace: Any) -> None:
    """A trace's `request` is a request."""
    again = api("create_trace", body=models.TraceRequest.from_dict(trace.request.to_dict()), prefer="wait=30")
    assert 201 == again.status_code
    assert trace.request == again.parsed.request


def test_conditional(api: Any, trace: Any) -> None:
    """The entity tag of an answer is good for a 304."""
    api("read_trace", trace.id, prefer="wait=30")
    api("follow_trace", trace.id)
    tag = api("read_trace", trace.id).headers["ETag"]
    assert 304 == api("read_trace", trace.id, if_none_match=tag).status_code


def test_follow(api: Any, trace: Any) -> None:
    """The stream of events ends with the end; resumed behind it, it is 204."""
    stream = api("follow_trace", trace.id)
    assert 200 == stream.status_code
    last = stream.parsed.strip().split("\n\n")[-1].split("\n")
    assert "event: end" == last[1]
    assert 204 == api("follow_trace", trace.id, last_event_id=last[0].removeprefix("id: ")).status_code


def test_list(api: Any, trace: Any) -> None:
    """Pages of one trace each, newest first, lead to all."""
    newest = api("list_traces", limit=1).parsed
    assert [trace.id] == [each.id for each in newest.traces]
    following = api("list_traces", limit=1, cursor=newest.next_cursor).parsed
    assert [trace.id] != [each.id for each in following.traces]


def test_delete(api: Any, trace: Any) -> None:
    """A deleted trace is gone, which a problem says."""
    assert 204 == api("delete_trace", trace.id).status_code
    gone = api("read_trace", trace.id)
    assert (404, "/problems/not-found") == (gone.status_code, gone.parsed.type_.value)


def test_errors(api: Any, models: Any) -> None:
    """A wrong request is a problem that names its fields."""
    refused = api("create_trace", body=models.TraceRequest(target="127.1", max_ttl=65))
    assert 422 == refused.status_code
    assert "/problems/invalid-request" == refused.parsed.type_.value
    assert ["/target", "/max_ttl"] == [error.pointer for error in refused.parsed.errors]
    assert isinstance(refused.parsed, models.Problem)


def test_service(api: Any) -> None:
    """The service's own resources are typed too."""
    assert "ok" == api("get_health", tag="service").parsed.status
    ready = api("get_readiness", tag="service").parsed
    assert (True, True) == (ready.ready, ready.families.ipv4.ready)
    assert "tracerouted" == api("get_contract", tag="pages").parsed["info"]["title"]
