"""Who may use the service: what every request passes before it is routed.

`Policy` holds what an operator decided about keys, proxies, quotas and origins; `Gate` stands in front of the routes
and applies what does not depend on the resource. What only creating a trace asks for (the quota and
Idempotency-Key) is applied by `traces`. With nothing configured, a GET passes after two comparisons.
"""

# twisted.web has no annotations for most of what is called here.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from attrs import field, frozen
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from ..naming.special import IPNetwork
from .clients import client_of
from .cors import Origins, answer_preflight, is_preflight
from .keys import KeyRing
from .quota import Quota
from .request import EdgeRequest

_SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_PAGES = frozenset({b"/", b"/docs"})
_HEALTH = frozenset({b"/healthz", b"/readyz"})


@frozen
class Policy:
    """What an operator decided; by default everybody may do everything, from no other origin."""

    keys: KeyRing | None = None
    trusted_proxies: tuple[IPNetwork, ...] = ()
    quota: Quota | None = None
    origins: Origins = field(factory=Origins)

    def client(self, request: EdgeRequest) -> str:
        """What limits and Idempotency-Keys go by: the name of the request's API key, else the client's address."""
        if request.owner is not None:
            return request.owner
        return client_of(request.getClientAddress().host, request.header(b"X-Forwarded-For"), self.trusted_proxies)


class Gate(Resource):
    """A resource in front of all others. `owner` of a request that passes is the name of its key."""

    isLeaf = True

    def __init__(self, policy: Policy, inner: IResource) -> None:
        super().__init__()
        self._policy = policy
        self._inner = inner
        self._open = policy.keys is None and not policy.origins

    def render(self, request: Any) -> Any:
        """Let the request through, or raise the problem it is refused with."""
        if not (self._open and request.method in _SAFE) and self._answered(request):
            return NOT_DONE_YET
        return self._inner.render(request)

    def _answered(self, request: EdgeRequest) -> bool:
        policy, path = self._policy, request.path
        if path in _PAGES or path.startswith((b"/static/", b"/docs/")):
            return False
        if policy.origins and policy.origins.share(request) and is_preflight(request):
            answer_preflight(request)
            return True
        if request.method not in _SAFE:
            policy.origins.check(request)
        if policy.keys is not None and path not in _HEALTH:
            request.owner = policy.keys.owner(request.header(b"Authorization"))
        return False
