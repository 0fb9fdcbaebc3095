"""Addresses: which only this machine reaches, and how they are written."""

from __future__ import annotations

import ipaddress

from toolkit.errors import UsageError
from toolkit.specs import ServeSpec


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reached_at(host: str) -> str:
    """Return the address at which this machine reaches what listens on HOST."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def in_url(host: str) -> str:
    """Return an address as a URL has it."""
    return f"[{host}]" if ":" in host else host


def need_loopback(spec: ServeSpec, *, why: str) -> None:
    """Refuse to be reached from other machines unless that was asked for in so many words."""
    if not spec.is_remote_allowed and not is_loopback(spec.host):
        raise UsageError(
            f"--host {spec.host} can be reached from other machines, and {why}.",
            hint="Leave --host out, and reach it from elsewhere through an SSH tunnel: ssh -L "
            f"{spec.http_port}:127.0.0.1:{spec.http_port} THIS_MACHINE; behind a gateway of your own, --allow-remote.",
        )
