"""Benchmarks: what the service promises about speed, memory and honesty, measured against its peers in the same run.

    python -m bench                 every row; the table at the end, and a JSON file in bench/results
    python -m bench many growth     the row of that name, or all whose names start so
    python -m bench --list          what there is
    python -m bench --profile many  where our processes' time goes in these rows, instead of the table
    python -m bench.report FILE     put a run into docs/performance.md, with its plots
    python -m bench.plots FILE DIR  the plots alone

A row measures one promise. It runs its subjects in turn (ours, peer, ours, peer...), several rounds each, because
the machine is rarely quiet: only ratios within one run mean anything. Every route found, ours or a peer's, is
compared with the truth; a fast wrong route doesn't count (`table`). Root is needed: the grounds are network
namespaces.

Grounds. `grounds.Chain` is a row of real Linux routers joined by veth pairs: kernel forwarding, replies at once. The
simulated internet (`tests/netsim`) has delays, but its answers cost more than a kernel's. Both offer `popen`, and
both vanish with the process that made them.

Subjects are programs in `subjects`, started on a ground, which take a job as a line of JSON on stdin and answer with
a line of JSON; or the peers' own command lines, in `peers`. Peers come from packages: scamper, traceroute and
mtr-tiny (Debian; `scripts/setup bench` installs them), and twisted-mtr 3.2.0 (PyPI, installed into `bench/.peers` by
the first run). A peer that is missing is left out, and the figures held against it say so.

A row breaks, and with it the run, when a subject ends, hangs or answers nonsense; being slow or wrong breaks nothing.
"""
