"""Edge functions: one Deno worker per folder of `supabase/functions`, with hosted's environment."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import uuid
from pathlib import Path

from local_stack.errors import StackError
from local_stack.keys import Keys
from local_stack.processes import ServiceSpec, accepts_connections
from local_stack.settings import PUBLISHABLE_KEY, REPOSITORY, SECRET_KEY, StackSettings

FUNCTIONS = REPOSITORY / "supabase" / "functions"
MEMORY_MB = 256
"""What hosted gives a function."""


def function_names() -> list[str]:
    """Return the functions of the repository, as the URL names them."""
    return sorted(path.parent.name for path in FUNCTIONS.glob("[!_]*/index.ts"))


def service_name(function: str) -> str:
    return f"function-{function}"


def function_service(settings: StackSettings, keys: Keys, name: str) -> ServiceSpec:
    """Return how to run the worker of one function."""
    port = settings.function_ports[name]
    return ServiceSpec(
        name=service_name(name),
        command=(
            *(_deno(), "run", "--quiet", "--no-prompt", "--cached-only", "--no-lock"),
            # Nothing but loopback, no file, no subprocess: a worker gets all it needs by HTTP.
            *("--allow-net=127.0.0.1", "--allow-env"),
            f"--v8-flags=--max-old-space-size={MEMORY_MB}",
            *_configuration(name),
            str(FUNCTIONS / name / "index.ts"),
        ),
        environment=function_environment(settings, keys, name),
        port=port,
        is_ready=functools.partial(accepts_connections, port),
        sources=(FUNCTIONS / name, FUNCTIONS / "_shared", FUNCTIONS / "deno.json"),
    )


def function_environment(settings: StackSettings, keys: Keys, name: str) -> dict[str, str]:
    """Return a worker's whole environment: hosted's variables and the project's secrets.

    The secrets are those of `supabase/functions/.env`, and the signing key, which is this stack's.
    """
    return {
        **_project_secrets(FUNCTIONS / ".env"),
        "SIGNAL_JWT_SIGNING_KEY": keys.signing_jwk(),
        "SUPABASE_URL": settings.api_url,
        "SUPABASE_ANON_KEY": keys.anon_key,
        "SUPABASE_SERVICE_ROLE_KEY": keys.service_role_key,
        "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": PUBLISHABLE_KEY}),
        "SUPABASE_SECRET_KEYS": json.dumps({"default": SECRET_KEY}),
        "SUPABASE_JWKS": json.dumps(keys.jwks()),
        "SUPABASE_DB_URL": settings.database_url,
        "SB_REGION": "local",
        "SB_EXECUTION_ID": str(uuid.uuid4()),
        "DENO_DEPLOYMENT_ID": f"{name}_local",
        "DENO_SERVE_ADDRESS": f"tcp:127.0.0.1:{settings.function_ports[name]}",
        "DENO_DIR": str(deno_directory()),
        "DENO_NO_UPDATE_CHECK": "1",
        "NO_COLOR": "1",
    }


def deno_directory() -> Path:
    """Return Deno's own cache, which `scripts/setup` fills."""
    if configured := os.environ.get("DENO_DIR"):
        return Path(configured)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deno"


def _configuration(name: str) -> list[str]:
    for candidate in (FUNCTIONS / name / "deno.json", FUNCTIONS / "deno.json"):
        if candidate.exists():
            return [f"--config={candidate}"]
    return ["--no-config"]


def _deno() -> str:
    beside = Path(sys.executable).parent / "deno"
    found = str(beside) if beside.exists() else shutil.which("deno")
    if found is None:
        raise StackError("Cannot run the edge functions: deno is missing; run scripts/setup")
    return found


def _project_secrets(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines, as `supabase functions serve` does with its default file."""
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}
