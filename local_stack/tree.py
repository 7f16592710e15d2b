"""The real PostgreSQL 17 with its extensions: Debian 13's packages, unpacked into the user's cache.

Nothing is installed on the host. `mmdebstrap` fetches and unpacks the packages, bubblewrap runs
them (see `database.py`). The tree is read-only afterwards and shared by all stacks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local_stack.errors import StackError
from local_stack.settings import cache_directory

RELEASE = "trixie"
VERSION = "17"
PACKAGES = (
    "dash",
    "postgresql-17",
    "postgresql-client-17",
    "postgresql-17-cron",
    "postgresql-17-partman",
    "postgresql-17-pgaudit",
    "postgresql-17-pgtap",
    "postgresql-17-plpgsql-check",
)
# Not needed to run the server or psql, pg_dump and pgbench. LLVM alone is a third of the tree: the
# just-in-time compiler is off, as on hosted Supabase.
PRUNED = (
    "etc/*.d",
    "usr/games",
    "usr/include",
    "usr/lib/*/libLLVM*",
    "usr/lib/*/libperl*",
    "usr/lib/*/libpython*",
    "usr/lib/*/libz3*",
    "usr/lib/*/perl*",
    "usr/lib/llvm*",
    "usr/lib/postgresql/17/lib/bitcode",
    "usr/lib/postgresql/17/lib/llvmjit*",
    "usr/lib/postgresql/17/lib/pgxs",
    "usr/lib/python*",
    "usr/lib/systemd",
    "usr/share/doc*",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/perl*",
    "usr/share/postgresql/17/man",
    "usr/share/python*",
    "var/cache",
    "var/lib",
)
# Hosted Supabase lets the role `postgres`, who is no superuser, create these (supautils).
# PostgreSQL itself calls that `trusted`.
TRUSTED = (
    "autoinc",
    "bloom",
    "dblink",
    "dict_xsyn",
    "earthdistance",
    "insert_username",
    "moddatetime",
    "pg_buffercache",
    "pg_cron",
    "pg_prewarm",
    "pg_stat_statements",
    "pg_walinspect",
    "pgaudit",
    "pgrowlocks",
    "pgstattuple",
    "plpgsql_check",
    "postgres_fdw",
    "refint",
    "sslinfo",
)
USERS = "postgres:x:999:999::/data:/bin/sh\n"
FREE_BYTES = 1_500_000_000


def tree_path(*more_packages: str) -> Path:
    """Return where the tree of this recipe, and of `more_packages`, is or will be."""
    recipe = repr((RELEASE, PACKAGES + more_packages, PRUNED, TRUSTED, USERS))
    return cache_directory() / f"postgres-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def ensure_tree(progress: Callable[[str], None], *more_packages: str) -> Path:
    """Return the tree; build it first, once per user, when it is missing (about 20 s)."""
    tree = tree_path(*more_packages)
    if tree.is_dir():
        return tree
    with _one_builder(tree.with_suffix(".lock"), progress):
        if not tree.is_dir():
            _require_tools_and_space(tree.parent)
            progress("Unpacking PostgreSQL 17 and its extensions (once, about 20 s)")
            with tempfile.TemporaryDirectory(dir=tree.parent, prefix="building-") as scratch:
                unpacked = _unpack(Path(scratch), PACKAGES + more_packages)
                _finish(unpacked)
                unpacked.rename(tree)
    return tree


@contextmanager
def _one_builder(lock_path: Path, progress: Callable[[str], None]) -> Iterator[None]:
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Waiting for another process that is unpacking PostgreSQL")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _require_tools_and_space(folder: Path) -> None:
    tools = ["mmdebstrap", "bwrap", "tar"]
    if os.geteuid() != 0:
        tools.append("newuidmap")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise StackError(
            f"Cannot unpack PostgreSQL: {', '.join(missing)} not found; run scripts/setup, or"
            " apt-get install mmdebstrap bubblewrap uidmap"
        )
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise StackError(
            f"Cannot unpack PostgreSQL: {free // 1_000_000} MB are free in {folder} and"
            f" {FREE_BYTES // 1_000_000} MB are needed; free some space, or set XDG_CACHE_HOME to a"
            " folder on another disk"
        )


def _unpack(scratch: Path, packages: Sequence[str]) -> Path:
    tarball, unpacked = scratch / "tree.tar", scratch / "tree"
    unpacked.mkdir()
    mode = "root" if os.geteuid() == 0 else "unshare"
    _run(
        *("mmdebstrap", "--quiet", f"--mode={mode}", "--variant=extract"),
        *(f"--include={','.join(packages)}", RELEASE, str(tarball)),
    )
    _run(
        *("tar", "--extract", "--file", str(tarball), "--directory", str(unpacked)),
        *("--no-same-owner", "--exclude=./dev/*"),
    )
    tarball.unlink()
    return unpacked


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-8:]
        raise StackError(
            f"Cannot unpack PostgreSQL: {command[0]} failed with code {done.returncode}; check the"
            f" network and the package sources. It said:\n  " + "\n  ".join(said)
        )


def _finish(tree: Path) -> None:
    """Prune the tree, and add what the packages' install scripts would have made."""
    for pattern in PRUNED:
        for path in tree.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name in ("bin", "lib", "lib64", "sbin"):
        if not (tree / name).exists() and (tree / "usr" / name).exists():
            (tree / name).symlink_to(f"usr/{name}")
    for name in ("data", "dev", "proc", "run/pg", "setup", "tmp"):
        (tree / name).mkdir(parents=True, exist_ok=True)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "etc/passwd").write_text(USERS)
    extensions = tree / f"usr/share/postgresql/{VERSION}/extension"
    for name in TRUSTED:
        with (extensions / f"{name}.control").open("a") as control:
            control.write("\ntrusted = true\n")


def main() -> int:
    try:
        ensure_tree(lambda line: print(line, flush=True))  # noqa: T201
    except StackError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
