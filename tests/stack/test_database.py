"""The database of a stack gives our migrations what hosted Supabase gives them, and no more."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import pytest

from local_stack.database import configuration
from local_stack.settings import StackSettings
from tests.plugins.stack import RunningStack

API_ROLES = ("anon", "authenticated", "service_role")


class Session:
    """A connection whose changes are rolled back at the end of the test."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg2.connect(dsn)

    def run(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, sql: str, *values: object) -> object:
        return self.run(sql, *values)[0][0]


def session(dsn: str) -> Iterator[Session]:
    opened = Session(dsn)
    yield opened
    opened.connection.close()


@pytest.fixture
def postgres(stack: RunningStack) -> Iterator[Session]:
    """The role that migrations run as, over TCP with its password."""
    yield from session(stack.database_url)


@pytest.fixture
def admin(stack: RunningStack) -> Iterator[Session]:
    """The stack's own superuser."""
    yield from session(stack.settings.socket_dsn("supabase_admin"))


def test_postgres_has_hosted_attributes_and_is_no_superuser(postgres: Session) -> None:
    assert postgres.run(
        "select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin"
        " from pg_roles where rolname = current_user"
    ) == [(False, True, True, True, True, True)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        postgres.run("create role another superuser")


def test_a_wrong_password_is_refused_over_tcp(stack: RunningStack) -> None:
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(stack.database_url.replace("postgres:postgres@", "postgres:wrong@"))


def test_the_server_is_postgresql_17_as_hosted_runs_it(postgres: Session) -> None:
    assert str(postgres.value("show server_version")).startswith("17.")
    for setting, value in {
        "wal_level": "logical",
        "TimeZone": "UTC",
        "jit": "off",
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
        "statement_timeout": "2min",
        "search_path": '"$user", public, extensions',
    }.items():
        assert postgres.value(f"show {setting}") == value, setting


def test_text_sorts_by_icu_as_on_hosted(postgres: Session) -> None:
    assert postgres.run(
        "select datlocprovider, datlocale, pg_encoding_to_char(encoding)"
        " from pg_database where datname = current_database()"
    ) == [("i", "en-US", "UTF8")]


@pytest.mark.parametrize(
    ("extension", "version"),
    [
        ("pg_partman", "5."),
        ("pg_cron", "1.6"),
        ("pgaudit", "17."),
        ("pgtap", "1.3"),
        ("plpgsql_check", "2."),
        ("pg_stat_statements", "1.11"),
    ],
)
def test_postgres_may_create_the_extensions(
    postgres: Session, extension: str, version: str
) -> None:
    postgres.run(f"create extension if not exists {extension}")

    found = postgres.value("select extversion from pg_extension where extname = %s", extension)

    assert str(found).startswith(version)


def test_partman_belongs_to_postgres_and_cron_does_not(postgres: Session) -> None:
    assert postgres.run(
        "select extname, extowner::regrole::text from pg_extension"
        " where extname in ('pg_partman', 'pg_cron') order by 1"
    ) == [("pg_cron", "supabase_admin"), ("pg_partman", "postgres")]


def test_cron_is_changed_through_its_functions_only(postgres: Session) -> None:
    postgres.run("select cron.schedule('nightly', '0 3 * * *', 'select 1')")
    assert postgres.run("select username, active from cron.job where jobname = 'nightly'") == [
        ("postgres", True)
    ]
    postgres.run("delete from cron.job_run_details")
    assert postgres.value("select cron.unschedule('nightly')") is True
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        postgres.run("update cron.job set active = false")


def test_a_cron_job_runs_as_the_role_that_scheduled_it(stack: RunningStack) -> None:
    connection = psycopg2.connect(stack.database_url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("create table public.cron_was_here (who text)")
            cursor.execute(
                "select cron.schedule('soon', '1 seconds',"
                " 'insert into public.cron_was_here values (current_user)')"
            )
            try:
                cursor.execute(
                    """
                    do $$ begin
                      for attempt in 1..200 loop
                        exit when exists (select from public.cron_was_here);
                        perform pg_sleep(0.05);
                        commit;
                      end loop;
                    end $$
                    """
                )
                cursor.execute("select distinct who from public.cron_was_here")
                assert cursor.fetchall() == [("postgres",)]
            finally:
                cursor.execute("select cron.unschedule('soon')")
                cursor.execute("drop table public.cron_was_here")
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("anon", {"statement_timeout=3s"}),
        ("authenticated", {"statement_timeout=8s"}),
        ("authenticator", {"statement_timeout=8s", "lock_timeout=8s"}),
        ("service_role", set()),
    ],
)
def test_api_roles_have_hosted_timeouts(postgres: Session, role: str, settings: set[str]) -> None:
    found = postgres.run("select unnest(rolconfig) from pg_roles where rolname = %s", role)

    assert {setting for (setting,) in found} == settings


def test_only_service_role_bypasses_row_security_among_api_roles(postgres: Session) -> None:
    assert postgres.run(
        "select rolname, rolbypassrls, rolcanlogin, rolsuper from pg_roles"
        " where rolname in ('anon', 'authenticated', 'service_role', 'authenticator') order by 1"
    ) == [
        ("anon", False, False, False),
        ("authenticated", False, False, False),
        ("authenticator", False, True, False),
        ("service_role", True, False, False),
    ]


def test_authenticator_is_nothing_until_it_becomes_a_caller(stack: RunningStack) -> None:
    for opened in session(stack.settings.socket_dsn("authenticator")):
        for role in API_ROLES:
            opened.run(f"set local role {role}")
            opened.run("reset role")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            opened.run("set local role postgres")


@pytest.mark.parametrize("kind", ["table", "sequence"])
def test_a_new_object_in_public_is_granted_to_nobody(postgres: Session, kind: str) -> None:
    postgres.run(f"create {kind} public.fresh" + (" ()" if kind == "table" else ""))
    for role in API_ROLES:
        assert (
            postgres.value(f"select has_{kind}_privilege(%s, 'public.fresh', 'select')", role)
            is False
        )


def test_auth_functions_read_the_claims_of_the_request(postgres: Session) -> None:
    subject = "5b7a4c1e-0000-4000-8000-000000000001"
    postgres.run(
        "select set_config('request.jwt.claims', %s, true)",
        f'{{"sub": "{subject}", "role": "authenticated", "email": "a@example.com"}}',
    )
    assert postgres.run("select auth.uid()::text, auth.role(), auth.email()") == [
        (subject, "authenticated", "a@example.com")
    ]
    postgres.run("select set_config('request.jwt.claims', '', true)")
    assert postgres.run("select auth.uid(), auth.jwt()") == [(None, None)]


@pytest.mark.parametrize(
    "statement",
    [
        "create policy probe on realtime.messages for select to authenticated using (true)",
        "alter policy probe on realtime.messages using (false)",
        "comment on policy probe on realtime.messages is 'probe'",
        "drop policy probe on realtime.messages",
    ],
)
def test_postgres_manages_policies_on_realtime_messages(postgres: Session, statement: str) -> None:
    if not statement.startswith("create"):
        postgres.run("create policy probe on realtime.messages for select using (true)")
    postgres.run(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "create table realtime.ours ()",
        "create function realtime.ours() returns int language sql as 'select 1'",
        "create index on realtime.messages (topic)",
        "create trigger ours after insert on realtime.messages"
        " execute function suppress_redundant_updates_trigger()",
        "alter table realtime.messages enable row level security",
        "alter table realtime.messages add column ours int",
        "alter table realtime.messages owner to postgres",
        "drop table realtime.messages",
        "drop function realtime.send(jsonb, text, text, boolean)",
        "set role supabase_realtime_admin",
    ],
)
def test_postgres_changes_nothing_else_in_realtime(postgres: Session, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        postgres.run(statement)


def test_realtime_messages_has_partitions_from_yesterday_to_three_days_ahead(
    admin: Session,
) -> None:
    admin.run("select local_stack.maintain_realtime_messages()")
    today = admin.value("select (now() at time zone 'utc')::date")
    assert isinstance(today, datetime.date)
    # A stack from before midnight still has the day before yesterday.
    made = admin.run(
        "select relname, pg_get_userbyid(relowner) from pg_class join pg_inherits on oid = inhrelid"
        " where inhparent = 'realtime.messages'::regclass order by 1"
    )
    assert made[-5:] == [
        (f"messages_{today + datetime.timedelta(day):%Y_%m_%d}", "supabase_realtime_admin")
        for day in range(-1, 4)
    ]
    assert admin.value("select local_stack.maintain_realtime_messages()") == 0


def test_old_partitions_of_realtime_messages_are_dropped(admin: Session) -> None:
    admin.run(
        "create table realtime.messages_2020_01_01 partition of realtime.messages"
        " for values from ('2020-01-01') to ('2020-01-02')"
    )

    admin.run("select local_stack.maintain_realtime_messages()")

    assert admin.value("select to_regclass('realtime.messages_2020_01_01')") is None


def test_send_stores_a_private_broadcast_with_an_id(postgres: Session) -> None:
    postgres.run("select realtime.send('{\"a\": 1}', 'event', 'topic')")

    assert postgres.run(
        "select payload ->> 'a', payload ->> 'id' = id::text, event, topic, private, extension"
        " from realtime.messages where topic = 'topic'"
    ) == [("1", True, "event", "topic", True, "broadcast")]


def test_send_warns_and_never_raises(postgres: Session) -> None:
    postgres.run("select realtime.send('[1]', 'event', 'topic')")

    assert "WarnSendingBroadcastMessage" in "".join(postgres.connection.notices)
    assert postgres.value("select count(*) from realtime.messages where topic = 'topic'") == 0


def test_broadcast_changes_refuses_a_statement_trigger(postgres: Session) -> None:
    with pytest.raises(psycopg2.errors.RaiseException, match="for each row, not for each statemen"):
        postgres.run(
            "select realtime.broadcast_changes("
            "'t', 'e', 'INSERT', 'x', 'public', null::record, null::record, 'STATEMENT')"
        )


def test_durable_stacks_sync_and_test_stacks_do_not() -> None:
    assert "fsync" not in configuration(StackSettings())
    assert "fsync = off" in configuration(StackSettings(durable=False))
