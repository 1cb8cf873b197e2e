"""Alive, and able to trace."""

from __future__ import annotations

from fake_http import Service


def test_alive(service: Service) -> None:
    """/healthz is 200 whatever the probers do."""
    service.engine.ready = {}
    assert (200, {"status": "ok"}) == ((answer := service.get("/healthz")).status, answer.json)


def test_ready(service: Service) -> None:
    """One family is enough; each says what it can do, or why it cannot."""
    answer = service.get("/readyz")
    assert 200 == answer.status
    assert {
        "ready": True,
        "families": {
            "ipv4": {
                "ready": True,
                "reason": None,
                "version": "0.95",
                "protocols": ["icmp", "udp"],
                "constant_flow_udp": True,
            },
            "ipv6": {
                "ready": False,
                "reason": "mtr-packet has no IPv6 socket",
                "version": None,
                "protocols": None,
                "constant_flow_udp": None,
            },
        },
    } == answer.json


def test_not_ready(service: Service) -> None:
    """No family is 503 with every reason and Retry-After."""
    families = dict(service.engine.ready)
    service.engine.ready = {family: families[list(families)[1]] for family in families}
    answer = service.get("/readyz")
    assert (503, "not-ready", "2") == (answer.status, answer.type, answer.headers["retry-after"])
    assert "ipv4: mtr-packet has no IPv6 socket; ipv6: mtr-packet has no IPv6 socket" == answer.json["detail"]
    assert ["ipv4", "ipv6"] == list(answer.json["families"])


def test_not_ready_while_shutting_down(service: Service) -> None:
    """A draining service is not ready, whatever its probers say."""
    service.site.drain()
    answer = service.get("/readyz")
    assert (503, "not-ready", "the service is shutting down") == (answer.status, answer.type, answer.json["detail"])
