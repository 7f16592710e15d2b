"""PostgreSQL of one stack: its data directory, its settings and the command that runs it.

The server runs under bubblewrap with the tree of `tree.py` as its root, in a process namespace of
its own: when that namespace's first process dies, the kernel ends every process in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from local_stack.errors import StackError
from local_stack.settings import StackSettings, cache_directory
from local_stack.tree import VERSION, tree_path

SUPERUSER = "supabase_admin"
PLATFORM_SQL = Path(__file__).with_name("platform.sql")
BINARIES = f"/usr/lib/postgresql/{VERSION}/bin"
INITDB = (
    f"{BINARIES}/initdb",
    "--pgdata=/data",
    f"--username={SUPERUSER}",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--locale-provider=icu",
    "--icu-locale=en-US",
    "--auth=trust",
    "--no-instructions",
)
HBA = """\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
"""
FREE_BYTES = 500_000_000
PLATFORM_MARK = "platform.sha256"
TEMPLATE_KEPT_S = 7 * 86_400


def bubblewrap(data: Path, run: Path, *command: str, tree: Path | None = None) -> list[str]:
    """Return the command line that runs `command` in the tree, with `data` and `run` writable."""
    return [
        *("bwrap", "--unshare-user", "--uid", "999", "--gid", "999"),
        *("--unshare-pid", "--as-pid-1", "--unshare-ipc", "--die-with-parent", "--new-session"),
        *("--ro-bind", str(tree or tree_path()), "/", "--dev", "/dev", "--tmpfs", "/tmp"),  # noqa: S108
        *("--bind", str(data), "/data", "--bind", str(run), "/run/pg"),
        *("--ro-bind", str(PLATFORM_SQL.parent), "/setup"),
        *("--clearenv", "--setenv", "LC_ALL", "C.UTF-8", "--setenv", "PATH", BINARIES),
        *("--chdir", "/data", "--", *command),
    ]


def server_command(settings: StackSettings) -> list[str]:
    """Return the command line of the stack's server; `prepare` has to come first."""
    return bubblewrap(
        settings.data_directory,
        settings.socket_directory,
        *(f"{BINARIES}/postgres", "-D", "/data"),
    )


def prepare(settings: StackSettings) -> None:
    """Make the data directory from the template unless it is there, and write its settings."""
    if shutil.which("bwrap") is None:
        raise StackError(
            "Cannot run PostgreSQL: bwrap is missing; run scripts/setup, or"
            " apt-get install bubblewrap"
        )
    free = shutil.disk_usage(settings.directory).free
    if free < FREE_BYTES:
        raise StackError(
            f"Cannot start the database of stack {settings.name}: {free // 1_000_000} MB are free"
            f" in {settings.directory} and {FREE_BYTES // 1_000_000} MB are needed; free some space"
        )
    make_socket_directory(settings)
    data = settings.data_directory
    _refuse_older_platform(settings)
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        draft = data.with_name("data.new")
        shutil.rmtree(draft, ignore_errors=True)
        _run(["cp", "--archive", "--reflink=auto", str(_ensure_template()), str(draft)], "copy")
        draft.rename(data)
    (settings.directory / PLATFORM_MARK).write_text(_platform_digest())
    (data / "postgresql.conf").write_text(configuration(settings))
    (data / "pg_hba.conf").write_text(HBA)
    # The server's process id counts only in its namespace, which ended with the last server.
    (data / "postmaster.pid").unlink(missing_ok=True)


def _platform_digest() -> str:
    return hashlib.sha256(PLATFORM_SQL.read_bytes()).hexdigest()


def _refuse_older_platform(settings: StackSettings) -> None:
    mark = settings.directory / PLATFORM_MARK
    has_data = (settings.data_directory / "PG_VERSION").exists()
    if has_data and mark.exists() and mark.read_text() != _platform_digest():
        raise StackError(
            f"Cannot start stack {settings.name}: its database was made before platform.sql"
            f" changed; make a new one with scripts/stack reset --name {settings.name}"
        )


def make_socket_directory(settings: StackSettings) -> None:
    """Make the folder of the Unix socket; refuse one that belongs to somebody else."""
    folder = settings.socket_directory
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid() or folder.is_symlink():
        raise StackError(
            f"Cannot use {folder} for the database's socket: it belongs to another user; remove it,"
            " or set TMPDIR to a folder of your own"
        )
    for left_over in folder.glob(".s.PGSQL.*"):
        left_over.unlink()


def configuration(settings: StackSettings) -> str:
    """Return postgresql.conf: hosted's behaviour, memory by the size of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    shared = min(2048, memory // 10) if settings.durable else 256
    values: dict[str, str] = {
        "listen_addresses": "'127.0.0.1'",
        "port": str(settings.database_port),
        "unix_socket_directories": "'/run/pg'",
        "max_connections": "200",
        "shared_buffers": f"{shared}MB",
        "effective_cache_size": f"{max(256, memory // 2)}MB",
        "maintenance_work_mem": "256MB",
        "work_mem": "8MB",
        "jit": "off",
        "wal_level": "logical",
        "max_wal_size": "8GB",
        "min_wal_size": "512MB",
        "checkpoint_timeout": "10min",
        "max_wal_senders": "20",
        "max_replication_slots": "20",
        "max_slot_wal_keep_size": "4GB",
        "shared_preload_libraries": "'pg_stat_statements,pgaudit,pg_cron,plpgsql_check'",
        "cron.database_name": "'postgres'",
        "cron.host": "'/run/pg'",
        "cron.timezone": "'UTC'",
        "pgaudit.log": "'none'",
        "timezone": "'UTC'",
        "log_timezone": "'UTC'",
        "password_encryption": "'scram-sha-256'",
        "log_line_prefix": "'%m [%p] %q%u@%d '",
        "log_min_duration_statement": "'1s'",
        "log_lock_waits": "on",
        "log_checkpoints": "off",
    }
    if not settings.durable:
        # synchronous_commit stays on: what was committed survives a killed server, not a power cut.
        values |= {"fsync": "off", "full_page_writes": "off"}
    lines = [f"{name} = {value}" for name, value in values.items()]
    return "# Written by local_stack at every start.\n" + "\n".join(lines) + "\n"


def template_path() -> Path:
    recipe = PLATFORM_SQL.read_bytes() + repr((tree_path().name, INITDB)).encode()
    return cache_directory() / f"template-{hashlib.sha256(recipe).hexdigest()[:12]}"


def _ensure_template() -> Path:
    """Return a data directory of a fresh project, made once per user and platform.sql."""
    template = template_path()
    if template.is_dir():
        return template
    with template.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.is_dir():
            with tempfile.TemporaryDirectory(dir=template.parent, prefix="building-") as scratch:
                data, run = Path(scratch) / "data", Path(scratch) / "run"
                data.mkdir(mode=0o700)
                run.mkdir(mode=0o700)
                _run(bubblewrap(data, run, *INITDB), "initialise")
                _apply_platform(data, run)
                data.rename(template)
    for old in template.parent.glob("template-*"):
        if old.is_dir() and old != template and time.time() - old.stat().st_mtime > TEMPLATE_KEPT_S:
            shutil.rmtree(old, ignore_errors=True)
    return template


def _apply_platform(data: Path, run: Path) -> None:
    settings = StackSettings(name="template", database_port=5432, durable=False)
    (data / "postgresql.conf").write_text(
        configuration(settings).replace("listen_addresses = '127.0.0.1'", "listen_addresses = ''")
    )
    with _server(bubblewrap(data, run, f"{BINARIES}/postgres", "-D", "/data"), run, data):
        _run(
            bubblewrap(
                data,
                run,
                *("psql", "--no-psqlrc", "--quiet", "--host=/run/pg", f"--username={SUPERUSER}"),
                *("--dbname=postgres", "--output=/dev/null", "--file=/setup/platform.sql"),
            ),
            "set up (platform.sql)",
        )


@contextlib.contextmanager
def _server(command: list[str], run: Path, data: Path) -> Iterator[None]:
    log = data.parent / "server.log"
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as server:
        try:
            deadline = time.monotonic() + 30
            while not _accepts(run, data):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise StackError(f"Cannot start PostgreSQL:\n{log.read_text()}")
                time.sleep(0.02)
            yield
        finally:
            interrupt_server(server.pid)
            server.wait(timeout=30)


def _accepts(run: Path, data: Path) -> bool:
    probe = bubblewrap(data, run, "pg_isready", "--quiet", "--host=/run/pg", "--port=5432")
    return subprocess.run(probe, check=False).returncode == 0


def interrupt_server(bubblewrap_pid: int) -> None:
    """Ask the server for a fast shutdown: sessions are cut, a checkpoint is written."""
    signal_server(bubblewrap_pid, signal.SIGINT)


def signal_server(bubblewrap_pid: int, number: signal.Signals) -> None:
    """Signal the server itself: bubblewrap, its parent, would only die of it."""
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        children = Path(f"/proc/{bubblewrap_pid}/task/{bubblewrap_pid}/children").read_text()
        for child in children.split():
            os.kill(int(child), number)


def _run(command: list[str], verb: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip()
    if "namespace" in said:
        raise StackError(
            f"Cannot run PostgreSQL under bubblewrap: this machine forbids user namespaces to this"
            f" user ({said}); allow them (sysctl kernel.unprivileged_userns_clone=1, or"
            " kernel.apparmor_restrict_unprivileged_userns=0), or run as root"
        )
    raise StackError(f"Cannot {verb} the database's data directory:\n{said}")


def superuser_dsn(settings: StackSettings) -> str:
    """Return how the stack itself connects, over the Unix socket."""
    return settings.socket_dsn(SUPERUSER)
