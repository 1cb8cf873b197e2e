"""Benchmarks: what the service promises about speed, memory and honesty, measured against its peers in the same run.

    python -m bench                 every row
    python -m bench many one        the rows whose name starts so
    python -m bench --list          what there is

A row measures one promise. It runs its subjects in turn (ours, peer, ours, peer...), several rounds each, because
the machine is rarely quiet: only ratios within one run mean anything. Every route found, ours or a peer's, is
compared with the truth; a fast wrong route doesn't count. Root is needed: the grounds are network namespaces.

Grounds. `grounds.Chain` is a row of real Linux routers joined by veth pairs: kernel forwarding, replies at once. The
simulated internet (`tests/netsim`) has delays, but its answers cost more than a kernel's. Both offer `popen`, and
both vanish with the process that made them.

Subjects are programs in `subjects`, started on a ground, which take a job as a line of JSON on stdin and answer with
a line of JSON; or the peers' own command lines, in `peers`. Peers come from packages: scamper, traceroute and
mtr-tiny (Debian), and twisted-mtr 3.2.0 (PyPI, installed into `bench/.peers` on first use). A peer that is missing is
left out and named.
"""
