"""A wall clock that a test can step, for programs it starts: `clockshift.c`, preloaded into them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Self

from tracerouted.mtrpacket import find_binary

SOURCE = Path(__file__).parent / "clockshift.c"
COMPILER = "cc"


class WallClock:
    """The clock. `environment` is for a program that is to live by it, `mtr_packet` is an mtr-packet that does."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "shift"
        library = folder / "clockshift.so"
        subprocess.run(
            [COMPILER, "-std=gnu11", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", library, SOURCE], check=True
        )
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "CLOCKSHIFT": str(self._file)}
        # A copy has no file capability, for which the linker would ignore the preload; its parent must be root. The
        # supervisor gives its child a clean environment, so a script has to say all this.
        binary = shutil.copy(find_binary(), folder / "mtr-packet")
        script = folder / "mtr-packet-by-this-clock"
        words = " ".join(f"{name}='{value}'" for name, value in self.environment.items())
        script.write_text(f"#!/bin/sh\n{words} exec '{binary}'\n")
        script.chmod(0o755)
        self.mtr_packet = str(script)

    def set(self, seconds: float) -> Self:
        """Let the clock be so many seconds ahead of the true one, at once."""
        # Written in place and at once: whoever runs has the file mapped.
        with self._file.open("r+b" if self._file.exists() else "w+b") as file:
            file.write(struct.pack("=q", round(seconds * 1e9)))
        return self
