"""File descriptors: how many the service may need, and how it gets them or makes do with less.

A connection is one descriptor. A process that has used up its limit (RLIMIT_NOFILE, getrlimit(2)) can start no
mtr-packet and ask no name server, so connections must run out first: the soft limit is raised as far as the hard one
allows, and where that is not enough fewer connections are taken.
"""

from __future__ import annotations

import resource

from attrs import evolve
from twisted.logger import Logger

from .settings import Settings

#: What is open whoever is connected: listeners, pipes to mtr-packet, the log, files being read; and some to spare.
OWN = 64
#: A look-up asks several servers, some of them for several records, each from a socket of its own; and responders'
#: names and AS numbers are looked up too.
PER_LOOKUP = 8

_log = Logger()


def fitting(settings: Settings) -> Settings:
    """The settings as this process can keep them, with its soft limit raised to what they need."""
    own = OWN + PER_LOOKUP * settings.dns_lookups
    needed = own + settings.max_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return settings
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed == needed:
        return settings
    # Half of what there is, if even the service's own do not fit: look-ups rarely happen all at once.
    most = min(max(allowed - own, allowed // 2), settings.max_connections)
    if most == settings.max_connections:
        return settings
    _log.warn(
        "{setting} is {asked}, but {allowed} file descriptors are allowed, of which the service may need {own} for "
        "itself: no more than {most} connections are taken; raise the limit to {needed} (ulimit -n, LimitNOFILE, "
        "--ulimit nofile), or lower the setting",
        setting="TRACEROUTED_MAX_CONNECTIONS",
        asked=settings.max_connections,
        allowed=allowed,
        own=own,
        most=most,
        needed=needed,
    )
    return evolve(settings, max_connections=most)
