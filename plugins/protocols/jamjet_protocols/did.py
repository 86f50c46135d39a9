"""The runtime's DID document: its name, its key, and a service for each agent (W3C DID 1.0, method did:web)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import base58

_CONTEXT = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"]
_ED25519 = b"\xed\x01"
"""The multicodec prefix of an Ed25519 public key."""


def did_document(url: str, public_key: bytes, services: Mapping[str, str]) -> dict[str, Any]:
    """`services` are the endpoints of the agents, by their ids."""
    did = did_of(url)
    key = {
        "id": f"{did}#key-1",
        "type": "Multikey",
        "controller": did,
        "publicKeyMultibase": multibase(_ED25519 + public_key),
    }
    return {
        "@context": _CONTEXT,
        "id": did,
        "verificationMethod": [key],
        "authentication": [key["id"]],
        "assertionMethod": [key["id"]],
        "service": [
            {"id": f"{did}#{quote(agent_id, safe='')}", "type": "AgentCard", "serviceEndpoint": endpoint}
            for agent_id, endpoint in services.items()
        ],
    }


def did_of(url: str) -> str:
    """`did:web:host%3Aport:path`."""
    parts = urlsplit(url)
    port = f"%3A{parts.port}" if parts.port else ""
    path = [_escaped(unquote(part)) for part in parts.path.split("/") if part]
    return ":".join(("did:web", _host(parts.hostname or "localhost") + port, *path))


def multibase(content: bytes) -> str:
    """In base58btc."""
    return f"z{base58.b58encode(content).decode()}"


def _host(name: str) -> str:
    """did:web forbids IP addresses; the ones of this machine have a name."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return _escaped(name if name.isascii() else name.encode("idna").decode())
    return "localhost" if address.is_loopback or address.is_unspecified else _escaped(name)


def _escaped(part: str) -> str:
    # `~` needs no escape in a URL, but is no character of a DID.
    return quote(part, safe="").replace("~", "%7E")
