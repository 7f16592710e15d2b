-- Partitions of every table that is cut by time, made ahead by pg_partman (the only migration that names it).
-- One row of private.partition_sets a table; everything goes by private.clock(), so tests can live through months.
-- Must never break: no client role reaches a partition, and a DEFAULT partition, which must stay empty, catches what comes too early.

create table private.partition_sets (
  parent text primary key,
  control text not null,
  every text not null,
  behind interval not null,
  ahead interval not null,
  data text,
  tier text references private.tiers (tier),
  constraint every_is_a_unit_of_time check (every in ('day', 'week', 'month', 'year')),
  constraint behind_is_not_negative check (behind >= interval '0'),
  constraint ahead_is_positive check (ahead > interval '0')
);

comment on table private.partition_sets is
'The partitioned tables: from how far behind the clock to how far ahead of it each has partitions.';
comment on column private.partition_sets.control is 'The column that the table is partitioned by.';
comment on column private.partition_sets.every is 'What one partition spans, in UTC.';
comment on column private.partition_sets.data is
'The line of private.retention that it goes by; null for what retention never drops.';
comment on column private.partition_sets.tier is
'The tier whose line it is; null for the longest of all.';

insert into private.partition_sets (parent, control, every, behind, ahead, data, tier)
values
-- A signal may be 7 days late. No partition is made that retention, of 7 days at least, would drop.
('private.signals', 'generated_at', 'day', '8 days', '7 days', null, null),
('private.segments_free', 'first_generated_at', 'month', '7 days', '2 months', 'signals', 'free'),
('private.segments_pro', 'first_generated_at', 'month', '7 days', '2 months', 'signals', 'pro'),
('private.segments_elite', 'first_generated_at', 'month', '7 days', '2 months', 'signals', 'elite'),
('private.signal_events', 'generated_at', 'month', '7 days', '2 months', 'signals', null),
('private.batches', 'received_at', 'week', '1 day', '4 weeks', 'ledger', null),
('private.advances', 'received_at', 'week', '1 day', '4 weeks', 'ledger', null),
('audit.links', 'received_at', 'month', '1 day', '3 months', null, null),
('private.rollups_1h', 'bucket', 'month', '7 days', '2 months', '1h', null),
('private.rollups_1d', 'bucket', 'year', '7 days', '1 year', '1d', null);

create view private.partitions
with (security_invoker = true)
as
select
  partition_set.parent,
  child.oid::regclass as partition,
  (regexp_match(bound.expression, 'FROM \(''([^'']+)''\)'))[1]::timestamptz as starts,
  (regexp_match(bound.expression, 'TO \(''([^'']+)''\)'))[1]::timestamptz as ends
from private.partition_sets as partition_set
inner join pg_catalog.pg_inherits as inheritance
  on inheritance.inhparent = partition_set.parent::regclass
inner join pg_catalog.pg_class as child on child.oid = inheritance.inhrelid
cross join lateral pg_catalog.pg_get_expr(child.relpartbound, child.oid) as bound (expression);

comment on view private.partitions is
'The partitions of every set, from starts to before ends; both are null for the DEFAULT partition.';

create function private.missing_partitions(
  parent text,
  from_time timestamptz,
  to_time timestamptz
)
returns setof timestamptz
language sql
stable
set search_path = ''
as $$
  with made as materialized (
    select each.starts, each.ends
    from private.partitions as each
    where each.parent = missing_partitions.parent
  )
  select missing.starts
  from private.partition_sets as partition_set
  cross join lateral generate_series(
    date_trunc(partition_set.every, missing_partitions.from_time, 'UTC'),
    missing_partitions.to_time, ('1 ' || partition_set.every)::interval, 'UTC') as missing (starts)
  where partition_set.parent = missing_partitions.parent
    and not exists (
      select from made where made.starts <= missing.starts and missing.starts < made.ends)
  order by missing.starts
$$;

comment on function private.missing_partitions is
'Where the partitions would start that from_time to to_time lacks.';

create function private.default_partition(parent text)
returns regclass
language sql
stable
set search_path = ''
as $$
  select made.partition
  from private.partitions as made
  where made.parent = default_partition.parent and made.starts is null
$$;

comment on function private.default_partition is 'The DEFAULT partition of a set.';

create function private.default_partition_has_rows(
  parent text,
  starts timestamptz
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_set private.partition_sets;
  v_found boolean;
begin
  select partition_set.* into strict v_set
  from private.partition_sets as partition_set
  where partition_set.parent = default_partition_has_rows.parent;
  execute format(
    'select exists (select from %1$s where %2$I >= $1 and %2$I < $1 + $2::interval)',
    private.default_partition(v_set.parent), v_set.control)
  into v_found using default_partition_has_rows.starts, '1 ' || v_set.every;
  return v_found;
end
$$;

comment on function private.default_partition_has_rows is
'Whether the DEFAULT partition holds rows of the partition that would start there. While it does,
PostgreSQL refuses to make that partition.';

create function private.default_partition_rows(parent text)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_rows bigint;
begin
  execute format(
    'select count(*) from (select from %s limit 10000) as each',
    private.default_partition(default_partition_rows.parent))
  into v_rows;
  return v_rows;
end
$$;

comment on function private.default_partition_rows is
'How many rows the DEFAULT partition of a set holds, counted up to 10,000.';

create function private.close_partitions(parent text)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_partition regclass;
begin
  -- Row-level security is not inherited. No role has a grant on a partition; should one ever be
  -- given by mistake, it shows no row.
  for v_partition in
    select made.partition
    from private.partitions as made
    inner join pg_catalog.pg_class as class on class.oid = made.partition
    where made.parent = close_partitions.parent and not class.relrowsecurity
  loop
    execute format('alter table %s enable row level security', v_partition);
    if close_partitions.parent = 'audit.links' then
      perform audit.refuse_truncate(v_partition);
    end if;
  end loop;
end
$$;

comment on function private.close_partitions is
'Closes the partitions of a set to every client role, and those of the audit to truncate.';

create function private.make_partition(
  parent text,
  starts timestamptz
)
returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
-- Whoever queues behind this waits as long as it does. It is tried again, and partitions are made
-- ahead, so giving up is safe.
set lock_timeout = '500ms'
as $$
begin
  -- What attaching a partition locks, taken here since pg_partman gives errors a code of its own.
  execute format(
    'lock table only %s in share update exclusive mode', make_partition.parent::regclass);
  execute format(
    'lock table %s in access exclusive mode', private.default_partition(make_partition.parent));
  if private.default_partition_has_rows(make_partition.parent, make_partition.starts) then
    raise exception using
      errcode = 'check_violation',
      message = format(
        'Cannot make the partition of %s that starts at %s: the DEFAULT partition has rows of it.',
        make_partition.parent, make_partition.starts),
      hint = 'See "Rows in a DEFAULT partition" in docs/operations.md.';
  end if;
  perform partman.create_partition_time(make_partition.parent, array[make_partition.starts]);
  -- pg_partman leaves the session without a search_path.
  perform set_config('search_path', setting.reset_val, false)
  from pg_catalog.pg_settings as setting
  where setting.name = 'search_path';
  perform private.close_partitions(make_partition.parent);
end
$$;

comment on function private.make_partition is 'Makes one partition and closes it.';

create function private.ensure_partitions(
  parent text,
  from_time timestamptz,
  to_time timestamptz
)
returns integer
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_starts timestamptz;
  v_made integer := 0;
begin
  -- Two at once would make the same one.
  perform pg_advisory_xact_lock(hashtext('private.partition_sets'));
  for v_starts in
    select missing.starts
    from private.missing_partitions(
      ensure_partitions.parent, ensure_partitions.from_time, ensure_partitions.to_time
    ) as missing (starts)
  loop
    perform private.make_partition(ensure_partitions.parent, v_starts);
    v_made := v_made + 1;
  end loop;
  return v_made;
end
$$;

comment on function private.ensure_partitions is
'Makes the partitions that from_time to to_time lacks and returns how many: for what lies outside the
days that partitions_step keeps, such as an import. Locks the set until the transaction ends.';

create function private.partitions_step()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_parent text;
  v_starts timestamptz;
begin
  -- Whoever holds it makes partitions now: this comes again with the next run.
  if not pg_try_advisory_xact_lock(hashtext('private.partition_sets')) then
    return 0;
  end if;
  for v_parent, v_starts in
    select partition_set.parent, missing.starts
    from private.partition_sets as partition_set
    cross join lateral (
      -- Also what was missed while no job ran: there is never a gap before the newest.
      select greatest(
        least(private.clock() - partition_set.behind, max(made.ends)),
        private.kept_since(partition_set.data, partition_set.tier)) as from_time
      from private.partitions as made
      where made.parent = partition_set.parent
    ) as kept
    cross join lateral private.missing_partitions(
      partition_set.parent, kept.from_time, private.clock() + partition_set.ahead
    ) as missing (starts)
    order by missing.starts
  loop
    continue when private.default_partition_has_rows(v_parent, v_starts);
    begin
      perform private.make_partition(v_parent, v_starts);
      return 1;
    exception
      -- The others do not wait for the one that cannot be locked now. It comes again with the next
      -- run; operations_health tells how far ahead of the clock partitions are.
      when lock_not_available then
        null;
    end;
  end loop;
  -- Those that somebody made by hand.
  perform private.close_partitions(partition_set.parent)
  from private.partition_sets as partition_set;
  return 0;
end
$$;

comment on function private.partitions_step is
'Makes one partition that is missing and returns 1; 0 when none is.';

create function private.adopt_default_partition(parent text)
returns regclass
language plpgsql
set search_path = ''
set timezone = 'UTC'
set lock_timeout = '2s'
as $$
declare
  v_set private.partition_sets;
  v_parent constant regclass := adopt_default_partition.parent;
  v_default constant regclass := private.default_partition(adopt_default_partition.parent);
  v_starts timestamptz;
  v_ends timestamptz;
begin
  select partition_set.* into strict v_set
  from private.partition_sets as partition_set
  where partition_set.parent = adopt_default_partition.parent;
  execute format('lock table %s in access exclusive mode', v_parent);
  execute format('select min(%I), max(%I) from %s', v_set.control, v_set.control, v_default)
  into v_starts, v_ends;
  if v_starts is null then
    return null;
  end if;
  v_starts := date_trunc(v_set.every, v_starts);
  v_ends := date_trunc(v_set.every, v_ends) + ('1 ' || v_set.every)::interval;
  if v_set.parent = 'private.signals' and v_ends > v_starts + interval '1 day' then
    raise exception using
      message = 'Cannot adopt the DEFAULT partition of private.signals: it has rows of several '
        'days, and what is packed and emptied is one day.',
      hint = 'See "Rows in a DEFAULT partition" in docs/operations.md.';
  end if;
  execute format('alter table %s detach partition %s', v_parent, v_default);
  execute format(
    'alter table %s rename to %I', v_default,
    split_part(v_set.parent, '.', 2) || '_p' || to_char(v_starts, 'YYYYMMDD'));
  execute format(
    'alter table %s attach partition %s for values from (%L) to (%L)',
    v_parent, v_default, v_starts, v_ends);
  execute format('create table %1$s_default partition of %1$s default', v_parent);
  perform private.close_partitions(v_set.parent);
  return v_default;
end
$$;

comment on function private.adopt_default_partition is
'For an operator, when rows are in a DEFAULT partition: makes it the ordinary partition of the time
that it has rows of, and puts an empty one in its place. No row is moved; the table is locked for as
long as reading the rows takes. Fails, with nothing done, where that time has partitions already.';

do $$
declare
  v_set private.partition_sets;
begin
  perform set_config('timezone', 'UTC', true);
  for v_set in select partition_set.* from private.partition_sets as partition_set loop
    perform partman.create_parent(
      p_parent_table := v_set.parent,
      p_control := v_set.control,
      p_type := 'range',
      p_interval := '1 ' || v_set.every,
      p_premake := 1,
      p_start_partition := date_trunc(v_set.every, private.clock(), 'UTC')::text,
      p_default_table := false,
      p_template_table := 'false',
      -- partman's own maintenance goes by the clock of the machine and by what is in the tables.
      p_automatic_maintenance := 'off'
    );
    if private.default_partition(v_set.parent) is null then
      execute format(
        'create table %1$s_default partition of %1$s default', v_set.parent);
    end if;
    perform private.ensure_partitions(
      v_set.parent, private.clock() - v_set.behind, private.clock() + v_set.ahead);
    perform private.close_partitions(v_set.parent);
  end loop;
end
$$;

alter table private.partition_sets enable row level security;
