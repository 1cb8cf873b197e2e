"""Names and addresses: which targets are allowed, where a name leads, and what is known about an address.

* `hostname` reads what was asked for; `policy` (over the tables of `special`) says whether it may be traced.
* `forward` looks a host name up, through the C library or through name servers (`dnsclient`).
* `reverse` finds the names of addresses, remembered in a `cache`; `describer` is the seam jobs ask.
* `lookups` bounds, shares and times what is under way; `errors` are the ways a look-up fails.
"""
