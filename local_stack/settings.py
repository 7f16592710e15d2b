"""What one local stack is: its name, its folder, its ports and its keys.

Everything else asks this module for a port, a path, a URL or a key. The keys and the JWT secret
are the public, documented defaults of `supabase start`: they protect nothing outside loopback.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from local_stack.errors import StackError

REPOSITORY = Path(__file__).resolve().parent.parent
JWT_SECRET = "super-secret-jwt-token-with-at-least-32-characters-long"  # noqa: S105
PUBLISHABLE_KEY = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
SECRET_KEY = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"  # noqa: S105
DATABASE_PASSWORD = "postgres"  # noqa: S105
DEFAULT_API_PORT = 54321
DEFAULT_DATABASE_PORT = 54322
SOCKET_PATH_LIMIT = 100
"""Unix socket paths end at 107 bytes; some are left for what a server appends."""


def cache_directory() -> Path:
    """Return the user's cache folder of this project: what is slow to make and never edited."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "signal-persistence"


@dataclass(frozen=True, slots=True)
class StackSettings:
    """The ports and switches of one stack, kept in `.stack/<name>/stack.json`."""

    name: str = "default"
    api_port: int = DEFAULT_API_PORT
    database_port: int = DEFAULT_DATABASE_PORT
    function_ports: dict[str, int] = dataclasses.field(default_factory=dict)
    durable: bool = True
    """False turns fsync off: for tests only, never for a benchmark."""
    state_root: str = str(REPOSITORY / ".stack")

    @property
    def directory(self) -> Path:
        return Path(self.state_root) / self.name

    @property
    def socket_directory(self) -> Path:
        """Where PostgreSQL's Unix socket is (`host=` of a libpq connection string)."""
        wanted = self.directory / "run"
        if len(os.fsencode(wanted / f".s.PGSQL.{self.database_port}.lock")) <= SOCKET_PATH_LIMIT:
            return wanted
        digest = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"sp-{digest}"

    @property
    def data_directory(self) -> Path:
        return self.directory / "data"

    @property
    def log_directory(self) -> Path:
        return self.directory / "logs"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def database_url(self) -> str:
        """The URL for the role `postgres`, who is no superuser, as on hosted Supabase."""
        return f"postgresql://postgres:{DATABASE_PASSWORD}@127.0.0.1:{self.database_port}/postgres"

    def socket_dsn(self, role: str) -> str:
        """A connection over the Unix socket as `role` (`authenticator`, `supabase_admin`, …)."""
        host = quote(str(self.socket_directory))
        account = f"{role}:{DATABASE_PASSWORD}"
        return f"postgresql://{account}@/postgres?host={host}&port={self.database_port}"

    def save(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "stack.json"
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")
        draft.replace(path)

    @classmethod
    def load(cls, directory: Path) -> StackSettings:
        path = directory / "stack.json"
        try:
            return cls(**json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise StackError(
                f"Cannot read {path}: it holds no settings of a stack ({error}); delete the file"
                " and start the stack again"
            ) from None
