"""Who asks an endpoint without keys: programs of this machine, and no web page that found it.

A page of any site can ask a name of its own that resolves to 127.0.0.1 (DNS rebinding), and then read the answer; and
without such a name it can still make the model work. The first shows in Host, the second in Origin.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from toolkit.gateway import refusals
from toolkit.gateway.refusals import Refusal

HINT = "Ask it as localhost, or have it started with --api-keys."


def need_own(host_header: str, origin: str, *, host: str) -> None:
    """Raise Refusal for a request that names another host than this machine, or comes from a page of another site.

    What listens on an address that others reach has keys, and is known by names that it cannot know.
    """
    if not _is_local(host):
        return
    if host_header and not _is_local(_name(f"//{host_header}")):
        raise Refusal(refusals.FORBIDDEN, f"This endpoint has no keys and is not {host_header!r}. {HINT}")
    if origin and not _is_local(_name(origin)):
        raise Refusal(refusals.FORBIDDEN, f"This endpoint has no keys and takes nothing from pages of {origin}. {HINT}")


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    try:
        return name == "localhost" or name.endswith(".localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
