"""The demonstration: the service inside a simulated internet, seen from a browser outside. `make demo` starts it.

`internet.toml` is what there is to trace, `relay` the way from the browser to the service, `__main__` puts the parts
together. The simulation itself is `tests/netsim`.
"""
