"""The looking-glass page: `pages` serves what is in `static`."""
