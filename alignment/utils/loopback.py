"""Loopback addresses, whose requests must never go through a proxy."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from urllib.parse import urlsplit

HOSTS = ("127.0.0.1", "localhost", "::1")


def is_loopback(url: str) -> bool:
    """Whether the host of an address is this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def spare_loopback(environment: MutableMapping[str, str] = os.environ) -> None:
    """Exempt loopback addresses from `http_proxy`, in this process and its children.

    Prefect's and MLflow's clients read that variable and must call our own servers directly.
    """
    # The lower-case name wins if both are set.
    value = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in value.split(",") if name.strip()]
    if "*" not in names:
        names += [host for host in HOSTS if host not in names]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(names)
