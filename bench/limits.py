"""The daemon's limits as the benchmarks raise them, by name: the defaults suit strangers' politeness."""

UNLIMITED = {
    "probes_per_second": 1_000_000,
    "target_probes_per_second": 1_000_000,
    "traces_per_prefix": 1_000_000,
    "max_running": 1000,
    "max_queued": 100_000,
    "max_kept": 20_000,
}
SERVED = {
    **UNLIMITED,
    "max_connections": 5000,
    "max_requests_per_connection": 1_000_000,
    "max_streams": 2000,
    "shutdown_s": 0,
}
