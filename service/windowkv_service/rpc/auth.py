"""API tokens: which tenant a caller is."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from windowkv_service.errors import Unauthenticated
from windowkv_service.rpc.call import Metadata

DEFAULT_TENANT = "default"
SCHEME = "bearer "


class Authenticator:
    """Bearer tokens and their tenants. Without tokens the service is open and everybody is one tenant.

    Digests are compared, all of them, so that the time taken says nothing about any token.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tenants = [(_digest(token), tenant) for token, tenant in tokens.items()]

    def tenant_of(self, metadata: Metadata) -> str:
        """The caller's tenant; Unauthenticated without a known token."""
        if not self._tenants:
            return DEFAULT_TENANT
        given = _digest(_bearer_token(metadata))
        matches = [tenant for digest, tenant in self._tenants if hmac.compare_digest(digest, given)]
        if not matches:
            raise Unauthenticated('metadata "authorization: Bearer TOKEN" with a known token is needed')
        return matches[0]


def _bearer_token(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str) and value.lower().startswith(SCHEME):
            return value[len(SCHEME) :].strip()
    return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
