"""A program written for twisted-mtr, with its import line changed: python examples/callbacks.py FROM TARGET...

FROM is this host's own IPv4 address, each TARGET an IPv4 address.
"""

import sys

from twisted.internet import reactor

from tracerouted.twisted_mtr import mtr, utils

local, *targets = map(utils.parse_ip, sys.argv[1:])
path = utils.find_binary("mtr-packet")
app_mtr = mtr.TraceRoute(mtr_binary_path=path, local_ipv4=local)
reactor.spawnProcess(app_mtr, "mtr-packet", [path], {})
waiting = set(targets)


def ended(target):
    waiting.discard(target)
    if not waiting:
        reactor.stop()


def completed(timestamp, target, protocol, port, hops):
    print(f"{target}: {len(hops)} hops")
    for number, address, milliseconds in hops:
        print(f"  {number} {address or '*'} {milliseconds}")
    ended(target)


def failed(hop, request, error, target):
    print(f"{target}: at hop {hop}: {error}")
    ended(target)


for target in targets:
    app_mtr.trace(completed, failed, target, extra=target)
reactor.run()
