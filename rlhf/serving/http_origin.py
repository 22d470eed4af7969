"""From where an HTTP request comes, by its addresses and headers: pure functions, for the web app and for the policy server.

A page of another site can send requests to this machine through somebody's browser, under a name of its own that points here
(DNS rebinding) or across origins. Both tell themselves apart by headers that such a page cannot set. No torch and no Gradio here.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit


def on_this_machine(peer: str, host_header: str) -> bool:
    """Both ends are this machine, by address and by the name that the browser used: another site's name may point here."""
    return is_loopback(peer) and is_loopback(_host(host_header))


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_from_elsewhere(method: str, headers: Mapping[str, str]) -> bool:
    """Whether another site's page sends this through somebody's browser. Following a link from there is fine.

    Args:
        headers: by name in lower case.
    """
    if site := headers.get("sec-fetch-site"):
        link = method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not (link and headers.get("sec-fetch-dest") == "document")
    # Browsers leave those headers out for plain http on a network.
    origin = headers.get("origin")
    return origin is not None and _address(origin) != headers.get("host")


def _host(host_header: str) -> str:
    """The name in a Host header; empty where it is none."""
    try:
        url = urlsplit(f"//{host_header}")
        return "" if url.username is not None or url.path or url.query or url.fragment else url.hostname or ""
    except ValueError:
        return ""


def _address(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
