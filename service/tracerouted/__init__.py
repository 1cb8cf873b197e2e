"""A traceroute daemon: traceroutes over HTTP, streamed hop by hop."""
