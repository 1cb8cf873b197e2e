"""Where mtr-packet is."""

from __future__ import annotations

import os
import shutil

#: Searched after PATH: distributions put it where an ordinary user's PATH doesn't reach.
SBIN = ("/usr/sbin", "/usr/local/sbin")


def find_binary(explicit: str | None = None) -> str:
    """The absolute path of mtr-packet: `explicit` if given, else from PATH and `SBIN`.

    Raises FileNotFoundError or PermissionError in words for an operator.
    """
    if explicit is not None:
        path = os.path.abspath(explicit)
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path} doesn't exist: install it (Debian: mtr-tiny) or correct the path")
        if not os.access(path, os.X_OK):
            raise PermissionError(f"{path} isn't executable for uid {os.geteuid()}")
        return path
    searched = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    found = shutil.which("mtr-packet", path=searched)
    if found is None:
        raise FileNotFoundError(f"mtr-packet isn't in {searched}: install it (Debian: mtr-tiny) or give its path")
    return os.path.abspath(found)
