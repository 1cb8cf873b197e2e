"""Everything that knows mtr-packet exists: its line protocol, its processes, and how they are kept alive."""

from .binary import find_binary
from .codec import Decoder, Feature, Prepared, RawReply, Word, prepare
from .pace import Pace
from .process import MtrProcess
from .supervisor import Supervisor, limit_descriptors
from .surroundings import Limits

__all__ = [
    "Decoder",
    "Feature",
    "Limits",
    "MtrProcess",
    "Pace",
    "Prepared",
    "RawReply",
    "Supervisor",
    "Word",
    "find_binary",
    "limit_descriptors",
    "prepare",
]
