"""Everything that knows HTTP exists. `make_site` puts it together; see `site`."""

from .limits import SETTINGS, HttpLimits
from .policy import Policy
from .site import EdgeSite, Router, make_site

__all__ = ["SETTINGS", "EdgeSite", "HttpLimits", "Policy", "Router", "make_site"]
