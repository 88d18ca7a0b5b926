"""API keys: made, hashed, compared.

A key is random and long, so one round of SHA-256 is enough to store it. `python -m serving.auth` prints a new key
for the client and the form of it that goes into `ENCORE_API_KEYS`.
"""

import hashlib
import hmac
import re
import secrets
import sys
from collections.abc import Sequence

_HASHED = re.compile(r"sha256:[0-9a-f]{64}")


def hash_key(key: str) -> str:
    """The stored form of a key, `sha256:` and 64 hex digits; a text already in that form is returned as it is."""
    return key if _HASHED.fullmatch(key) else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def bearer_token(header: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header (the scheme in any case), None when there is none."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def is_known(token: str, hashes: Sequence[str]) -> bool:
    """Whether `token` is one of the keys. The time taken tells nothing about which, or how nearly."""
    given = hashlib.sha256(token.encode()).hexdigest()
    matches = [hmac.compare_digest(f"sha256:{given}", stored) for stored in hashes]
    return any(matches)


def main() -> None:
    """Print a new key and its hash."""
    key = secrets.token_urlsafe(32)
    sys.stdout.write(f"key (for the client):              {key}\n")
    sys.stdout.write(f"for the server's ENCORE_API_KEYS:  {hash_key(key)}\n")


if __name__ == "__main__":
    main()
