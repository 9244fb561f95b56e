"""Lets the callers of several tenants in, each with tokens and models of its own.

A caller names its tenant in the header `x-tenant` and shows a token in `authorization: Bearer`. The settings hold the
SHA-256 of each token, never a token. A request without `x-tenant` is left to the next authenticator.
"""

# All imports stand here: they run when the component is built. There is no file system to import from later.
import json
import re
from dataclasses import dataclass

from componentize_py_types import Err
from wit_world.imports import crypto
from wit_world.imports.types import Header, Lane, Principal, Rejection, RequestHead

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")
LANES = {"query": Lane.QUERY, "bulk": Lane.BULK}

# A minute: credentials change with the settings, and the gateway forgets its answers when those are read anew.
DEFAULT_VALID_FOR_MS = 60_000
U32_MAX = 2**32 - 1


@dataclass
class Tenant:
    """What the settings say of one tenant; `tokens` are the digests by the token's name."""

    tokens: dict[str, bytes]
    allowed_models: list[str] | None
    lane: Lane | None
    limit: str | None


@dataclass
class Settings:
    tenants: dict[str, Tenant]
    valid_for_ms: int


settings = Settings(tenants={}, valid_for_ms=0)


class Lifecycle:
    def init(self, text: str) -> None:
        global settings
        try:
            settings = parse_settings(json.loads(text))
        except ValueError as error:
            # What is not an `Err` would be a trap, and its message lost.
            raise Err(str(error)) from None


class Authenticator:
    def authenticate(self, head: RequestHead) -> Principal | None:
        name = single_header(head, "x-tenant")
        if name is None:
            return None
        digest = crypto.sha256(bearer_token(head).encode())
        tenant = settings.tenants.get(name)
        token_name = matching_token(tenant, digest) if tenant else None
        if token_name is None:
            # The same for an unknown tenant: nobody learns which tenants there are.
            raise unauthorized("wrong tenant or token")
        return Principal(
            subject=f"{name}/{token_name}",
            tenant=name,
            scopes=[],
            allowed_models=tenant.allowed_models,
            # A tenant's callers share cached vectors. The slash keeps it apart from the subjects of plain keys.
            cache_namespace=f"tenant/{name}",
            lane=tenant.lane,
            limit=tenant.limit,
            valid_for_ms=settings.valid_for_ms,
            attributes=[],
        )


def matching_token(tenant: Tenant, digest: bytes) -> str | None:
    """Looks at all tokens, also after a match, so that the time says nothing of the place in the list."""
    found = None
    for name, known in tenant.tokens.items():
        if crypto.equal(known, digest):
            found = name
    return found


def bearer_token(head: RequestHead) -> str:
    scheme, _, token = (single_header(head, "authorization") or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise unauthorized("the header authorization must be: Bearer TOKEN")
    return token


def single_header(head: RequestHead, name: str) -> str | None:
    values = [header.value for header in head.headers if header.name == name]
    if len(values) > 1:
        # Proxies differ in which of two they believe.
        raise Err(Rejection(400, "duplicate_header", f"the header {name} must be there once, got {len(values)}", []))
    return values[0] if values else None


def unauthorized(message: str) -> Err[Rejection]:
    return Err(Rejection(401, "invalid_api_key", message, [Header("www-authenticate", "Bearer")]))


def parse_settings(given: object) -> Settings:
    """Raises ValueError, which names the setting and says what would be right."""
    table = checked_table(given, "settings", {"tenants", "valid_for_ms"})
    tenants = table.get("tenants")
    if not isinstance(tenants, dict) or not tenants:
        raise ValueError("setting tenants must be a table with a table for each tenant")
    for name in tenants:
        check_name(name, "tenants")
    valid_for_ms = table.get("valid_for_ms", DEFAULT_VALID_FOR_MS)
    # Python counts True among the integers.
    if type(valid_for_ms) is not int or not 0 <= valid_for_ms <= U32_MAX:
        raise ValueError(f"setting valid_for_ms must be an integer from 0 to {U32_MAX}, got {valid_for_ms!r}")
    return Settings({name: parse_tenant(name, tenant) for name, tenant in tenants.items()}, valid_for_ms)


def parse_tenant(name: str, given: object) -> Tenant:
    path = f"tenants.{name}"
    table = checked_table(given, path, {"tokens", "allowed_models", "lane", "limit"})
    tokens = table.get("tokens")
    if not isinstance(tokens, dict) or not tokens:
        raise ValueError(f"setting {path}.tokens must be a table of NAME = SHA-256 in hex, got {type(tokens).__name__}")
    models = table.get("allowed_models")
    if models is not None and not (isinstance(models, list) and all(isinstance(model, str) for model in models)):
        raise ValueError(f"setting {path}.allowed_models must be a list of model names")
    lane = table.get("lane")
    if lane is not None and not (isinstance(lane, str) and lane in LANES):
        raise ValueError(f"setting {path}.lane must be one of {', '.join(LANES)}, got {lane!r}")
    limit = table.get("limit")
    if limit is not None and not isinstance(limit, str):
        raise ValueError(f"setting {path}.limit must be the name of a table in auth.limits")
    return Tenant(
        tokens={token: parse_digest(f"{path}.tokens", token, digest) for token, digest in tokens.items()},
        allowed_models=models,
        lane=LANES.get(lane),
        limit=limit,
    )


def parse_digest(path: str, name: str, digest: object) -> bytes:
    check_name(name, path)
    if not isinstance(digest, str) or not SHA256_HEX.fullmatch(digest):
        # Without the value: somebody may have put the token itself there.
        raise ValueError(f"setting {path}.{name} must be the token's SHA-256, 64 hexadecimal digits")
    return bytes.fromhex(digest)


def check_name(name: str, path: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"names in {path} must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-', got {name!r}")


def checked_table(given: object, path: str, known: set[str]) -> dict:
    if not isinstance(given, dict):
        raise ValueError(f"{path} must be a table")
    for key in given:
        if key not in known:
            raise ValueError(f"unknown setting {key!r} in {path}: use {', '.join(sorted(known))}")
    return given
