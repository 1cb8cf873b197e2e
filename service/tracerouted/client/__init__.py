"""A client of the service for Twisted programs.

    client = Client("http://127.0.0.1:8080", reactor)
    trace = await client.create("example.net", probes=5)
    async for event in client.events(trace.id):
        ...

It returns the values of `model`, as the library does. What goes wrong is a `ClientError`: `ServiceUnreachable`,
`NotUnderstood`, or `Refused` with everything the service's problem document (RFC 9457) says.
"""

from .errors import ClientError, FieldProblem, NotFound, NotUnderstood, Refused, ServiceUnreachable, TryLater
from .service import Client

__all__ = [
    "Client",
    "ClientError",
    "FieldProblem",
    "NotFound",
    "NotUnderstood",
    "Refused",
    "ServiceUnreachable",
    "TryLater",
]
