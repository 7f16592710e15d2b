"""A stack starts, tells its state, heals itself, and leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest

from local_stack import control, database, migrations, ports, supervisor
from local_stack.errors import StackError
from local_stack.processes import RotatingLog
from local_stack.settings import REPOSITORY, StackSettings
from tests.plugins.stack import new_test_settings

DEADLINE_S = 20.0
PARENT = """
import sys, time
from local_stack import control
from local_stack.settings import StackSettings
attached = control.up(StackSettings.load(__import__("pathlib").Path(sys.argv[1])), attached=True)
print("up", flush=True)
time.sleep(600)
"""


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)
    return found


def scripts_stack(settings: StackSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local_stack", *arguments, "--name", settings.name]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )


def supervisor_pid(settings: StackSettings) -> int:
    pid = control.status(settings)["supervisor_pid"]
    assert isinstance(pid, int)
    return pid


def service(settings: StackSettings, name: str) -> dict[str, Any]:
    found: dict[str, Any] = control.status(settings)["services"].get(name, {})
    return found


def descendants(pid: int) -> set[int]:
    """Return the process and all it started, however deep."""
    found = {pid}
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found |= descendants(int(child))
    return found


def is_alive(pid: int) -> bool:
    """Return whether the process runs; a zombie that waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def all_gone(pids: set[int]) -> bool:
    return not any(is_alive(pid) for pid in pids)


def all_ports(settings: StackSettings) -> list[int]:
    return list(control.status(settings)["ports"].values())


def query(settings: StackSettings, sql: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(settings.database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@pytest.fixture(scope="module")
def own_stack() -> Iterator[StackSettings]:
    """A stack that these tests may kill, started as a user starts it."""
    settings = new_test_settings("-own")
    settings.save()
    started = scripts_stack(settings, "up")
    assert started.returncode == 0, started.stderr
    yield StackSettings.load(settings.directory)
    control.remove(settings)


def test_status_names_urls_keys_ports_and_running_services(own_stack: StackSettings) -> None:
    answer = scripts_stack(own_stack, "status", "--json")

    assert answer.returncode == 0, answer.stderr
    status = json.loads(answer.stdout)
    assert status["state"] == "running"
    assert status["api_url"] == f"http://127.0.0.1:{own_stack.api_port}"
    assert status["database_url"] == own_stack.database_url
    assert status["ports"]["database"] == own_stack.database_port
    assert {"publishable_key", "secret_key", "anon_key", "service_role_key"} <= status.keys()
    assert {"database", "gateway", "function-ingest-signals", "function-query-signals"} <= (
        status["services"].keys()
    )
    for name, known in status["services"].items():
        assert known["state"] == "running", name
        assert is_alive(known["pid"]), name


def test_everything_listens_on_loopback_only(own_stack: StackSettings) -> None:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if int(port, 16) in all_ports(own_stack) and line.split()[3] == ports.LISTENING:
                assert address == "0100007F"


def test_a_second_up_changes_nothing(own_stack: StackSettings) -> None:
    before = control.status(own_stack)["services"]

    again = scripts_stack(own_stack, "up")

    assert again.returncode == 0, again.stderr
    assert "running already" in again.stdout
    assert control.status(own_stack)["services"] == before


def test_two_ups_at_once_end_with_one_stack(own_stack: StackSettings) -> None:
    control.down(own_stack)
    command = [sys.executable, "-m", "local_stack", "up", "--name", own_stack.name]
    both = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) for _ in range(2)]

    assert [process.wait(60) for process in both] == [0, 0]
    assert control.is_running(own_stack)


@pytest.mark.parametrize("name", ["function-ingest-signals", "gateway", "database"])
def test_a_crashed_child_is_started_again(own_stack: StackSettings, name: str) -> None:
    before = service(own_stack, name)

    os.kill(before["pid"], signal.SIGKILL)

    wait_until(
        lambda: (
            service(own_stack, name)["state"] == "running"
            and service(own_stack, name)["pid"] != before["pid"]
        ),
        f"{name} runs again",
    )
    assert service(own_stack, name)["restarts"] == before["restarts"] + 1
    assert f"{name} ended with code -9" in scripts_stack(own_stack, "logs", name).stdout


def test_logs_of_an_unknown_service_names_the_known_ones(own_stack: StackSettings) -> None:
    answer = scripts_stack(own_stack, "logs", "mail")

    assert answer.returncode == 1
    assert answer.stderr.startswith("Cannot show the log of mail: stack")
    assert "database" in answer.stderr


def test_reset_gives_an_empty_database_with_the_migrations(own_stack: StackSettings) -> None:
    query(own_stack, "create table public.left_over ()")

    assert scripts_stack(own_stack, "reset").returncode == 0

    assert query(own_stack, "select to_regclass('public.left_over')") == [(None,)]
    files = {path.name.split("_")[0] for path in migrations.MIGRATIONS.glob("*.sql")}
    applied = query(own_stack, "select version from supabase_migrations.schema_migrations")
    assert {row[0] for row in applied} == files


def test_a_migration_edited_after_it_was_applied_asks_for_a_reset(
    own_stack: StackSettings,
) -> None:
    record = own_stack.directory / migrations.APPLIED
    text = record.read_text()
    first = min(json.loads(text))
    record.write_text(json.dumps({**json.loads(text), first: "another digest"}))
    try:
        with pytest.raises(StackError, match=f"{first}.*changed after.*scripts/stack reset"):
            control.up(own_stack)
    finally:
        record.write_text(text)


def test_a_database_of_an_older_platform_asks_for_a_reset(own_stack: StackSettings) -> None:
    mark = own_stack.directory / database.PLATFORM_MARK
    text = mark.read_text()
    control.down(own_stack)
    mark.write_text("another digest")
    try:
        with pytest.raises(StackError, match=r"platform\.sql changed.*scripts/stack reset"):
            control.up(own_stack)
    finally:
        mark.write_text(text)
        control.up(own_stack)


def test_up_restarts_only_what_changed(own_stack: StackSettings) -> None:
    before = {name: service(own_stack, name)["pid"] for name in ("database", "gateway")}
    os.utime(own_stack.directory / "stack.json")

    control.up(own_stack)

    assert service(own_stack, "database")["pid"] == before["database"]
    assert service(own_stack, "gateway")["pid"] != before["gateway"]
    assert service(own_stack, "gateway")["state"] == "running"


def test_unreadable_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"colour": "blue"}')

    with pytest.raises(StackError, match=r"Cannot read .*stack\.json.*delete the file"):
        StackSettings.load(tmp_path)


def test_down_leaves_nothing_running_and_can_be_repeated(own_stack: StackSettings) -> None:
    control.up(own_stack)
    pids = descendants(supervisor_pid(own_stack))
    used = all_ports(own_stack)
    assert len(pids) > 5

    first, second = scripts_stack(own_stack, "down"), scripts_stack(own_stack, "down")

    assert "is stopped" in first.stdout
    assert "was not running" in second.stdout
    assert second.returncode == 0
    assert all_gone(pids)
    assert all(ports.is_free(port) for port in used)
    assert scripts_stack(own_stack, "status").returncode == 1


def test_killing_the_supervisor_leaves_nothing_and_the_next_up_recovers(
    own_stack: StackSettings,
) -> None:
    control.up(own_stack)
    query(own_stack, "create table if not exists public.kept as select 1 as one")
    pids = descendants(supervisor_pid(own_stack))

    os.kill(supervisor_pid(own_stack), signal.SIGKILL)

    wait_until(lambda: all_gone(pids), "all processes end with the supervisor")
    assert (own_stack.data_directory / "postmaster.pid").exists()
    assert not control.is_running(own_stack)
    control.up(own_stack)
    assert query(own_stack, "select one from public.kept") == [(1,)]


def test_a_stack_ends_with_the_process_that_started_it() -> None:
    settings = new_test_settings("-orphan")
    settings.save()
    command = [sys.executable, "-c", PARENT, str(settings.directory)]
    parent = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        pids = descendants(supervisor_pid(settings))

        parent.kill()

        wait_until(lambda: all_gone(pids), "all processes end with the parent")
    finally:
        parent.kill()
        parent.communicate()
        control.remove(settings)


@pytest.fixture
def unused_settings() -> Iterator[StackSettings]:
    settings = new_test_settings("-unused")
    settings.save()
    yield settings
    control.remove(settings)


def test_a_taken_port_is_named_with_its_holder(unused_settings: StackSettings) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        answer = scripts_stack(unused_settings, "up", "--api-port", str(taken))

    assert answer.returncode == 1
    assert f"port {taken} is taken by process {os.getpid()} (" in answer.stderr
    assert "--api-port" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_full_disk_is_named_before_anything_starts(
    unused_settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FREE_BYTES", 10**18)

    with pytest.raises(StackError, match=r"MB are free in .* are needed; free some space"):
        control.up(unused_settings)

    assert not control.is_running(unused_settings)


def test_missing_bubblewrap_is_named_with_what_to_install(
    unused_settings: StackSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(StackError, match="bwrap is missing; run scripts/setup"):
        control.up(unused_settings)


def test_a_name_that_is_no_folder_name_is_refused() -> None:
    answer = scripts_stack(StackSettings(name="../elsewhere"), "down")

    assert answer.returncode == 1
    assert answer.stderr.startswith("Cannot use '../elsewhere' as a stack's name")


def test_asking_for_the_state_never_looks_like_a_running_stack(
    unused_settings: StackSettings,
) -> None:
    with (unused_settings.directory / supervisor.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)

        assert not control.is_running(unused_settings)


def test_a_stale_process_id_is_never_signalled(unused_settings: StackSettings) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        lock = supervisor.take_lock(unused_settings.directory, patience_s=0)
        assert lock is not None
        with lock:
            lock.write(f"{bystander.pid}\n")
            lock.flush()
            control._signal_supervisor(unused_settings, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.2)
    finally:
        bystander.kill()
        bystander.wait()


def test_down_of_a_stack_that_never_was_leaves_no_folder() -> None:
    settings = StackSettings(name="never-was")

    assert scripts_stack(settings, "down").returncode == 0

    assert not settings.directory.exists()


def test_a_deep_folder_gets_a_short_socket_path(tmp_path: Path) -> None:
    deep = StackSettings(name="deep", state_root=str(tmp_path / ("d" * 100)))

    assert len(str(deep.socket_directory)) < 80
    assert deep.socket_directory == deep.socket_directory
    assert StackSettings(name="other", state_root=deep.state_root).socket_directory != (
        deep.socket_directory
    )


def test_a_folder_with_signs_in_its_name_makes_a_valid_dsn() -> None:
    settings = StackSettings(name="x", state_root="/my files & more/100%")

    parsed = psycopg2.extensions.parse_dsn(settings.socket_dsn("anon"))

    assert parsed["host"] == "/my files & more/100%/x/run"


def test_a_deep_stack_serves_over_its_socket(tmp_path: Path) -> None:
    shallow = new_test_settings()
    deep = dataclasses.replace(shallow, name="deep", state_root=str(tmp_path / ("d" * 100)))
    attached = control.up(deep, attached=True)
    try:
        connection = psycopg2.connect(deep.socket_dsn("supabase_admin"))
        connection.close()
    finally:
        assert attached is not None
        attached.close()
        control.remove(deep)
    assert not deep.socket_directory.exists()


def test_a_log_stays_within_its_bound_and_keeps_whole_lines(tmp_path: Path) -> None:
    log = RotatingLog(tmp_path / "service.log", limit=1000)
    for number in range(250):
        log.write(f"line {number:04}\n".encode())
    log.close()

    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"service.log", "service.log.1"}
    assert max(sizes.values()) <= 1000
    kept = (tmp_path / "service.log.1").read_text() + (tmp_path / "service.log").read_text()
    assert kept.splitlines() == [f"line {number:04}" for number in range(100, 250)]


def test_a_log_on_a_full_disk_does_not_fail() -> None:
    log = RotatingLog(Path("/dev/full"))

    log.write(b"lost\n")

    log.close()
