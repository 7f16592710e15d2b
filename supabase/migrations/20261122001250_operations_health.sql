-- operations_health: one row for each thing that can go wrong unseen, for operators and their alerts.
-- docs/operations.md says for each what to do when ok is false.
-- Must never break: it is cheap enough to be asked every minute, and only service_role may ask.

create type private.health_check as (
  name text,
  value numeric,
  unit text,
  ok boolean,
  hint text
);

comment on type private.health_check is
'What is seen of one thing; hint names the worst case of it.';

create function private.partition_checks()
returns setof private.health_check
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select
      'partition_runway', round(extract(epoch from runway.left) / 86400, 1), 'days',
      runway.left > runway.ahead / 2, runway.parent
    from (
      select
        partition_set.parent, partition_set.ahead, max(made.ends) - private.clock() as left
      from private.partition_sets as partition_set
      inner join private.partitions as made on made.parent = partition_set.parent
      group by partition_set.parent
    ) as runway
    order by extract(epoch from runway.left) / extract(epoch from runway.ahead)
    limit 1;
  return query
    select
      'rows_in_default_partitions', coalesce(sum(held.rows), 0), 'rows',
      coalesce(sum(held.rows), 0) = 0,
      string_agg(held.parent, ', ' order by held.parent) filter (where held.rows > 0)
    from (
      select partition_set.parent, private.default_partition_rows(partition_set.parent) as rows
      from private.partition_sets as partition_set
    ) as held;
  return query
    select
      'open_partitions', count(*)::numeric, 'partitions', count(*) = 0, min(made.partition::text)
    from private.partitions as made
    inner join pg_catalog.pg_class as class on class.oid = made.partition
    where not class.relrowsecurity or class.relacl is not null;
  return query
    select
      'partitions_past_retention', count(*)::numeric, 'partitions',
      coalesce(max(expired.past) < interval '1 day', true), min(expired.partition::text)
    from private.expired_partitions() as expired;
end
$$;

comment on function private.partition_checks is 'The checks of operations_health on partitions.';

create function private.job_checks()
returns setof private.health_check
language sql
stable
set search_path = ''
as $$
  select
    'job_' || job.job,
    round(extract(epoch from good.age)),
    'seconds',
    coalesce(good.age < job.late_after, false),
    case when last.error is null and good.age is null then 'has not run' else last.error end
  from private.jobs as job
  left join lateral (
    select clock_timestamp() - run.finished_at as age
    from private.job_runs as run
    where run.job = job.job and run.finished_at is not null and run.error is null
    order by run.run_no desc
    limit 1
  ) as good on true
  left join lateral (
    select run.error
    from private.job_runs as run
    where run.job = job.job and run.finished_at is not null
    order by run.run_no desc
    limit 1
  ) as last on true
$$;

comment on function private.job_checks is
'The checks of operations_health on jobs: since when the last good run has ended, and the last error.';

create function private.lag_checks()
returns setof private.health_check
language sql
stable
set search_path = ''
as $$
  select
    'packing_overdue', round(coalesce(max(extract(epoch from day.overdue)), 0) / 3600, 1), 'hours',
    coalesce(max(day.overdue) < interval '6 hours', true),
    (array_agg(day.partition::text order by day.overdue desc))[1]
  from (
    -- A day is due 24 hours after its end, and again every midnight.
    select
      made.partition,
      private.clock() - coalesce(
        date_trunc('day', packed.packed_at, 'UTC') + interval '24 hours',
        made.ends + interval '24 hours') as overdue
    from private.partitions as made
    left join private.days as packed on packed.starts = made.starts
    where made.parent = 'private.signals'
  ) as day
  where day.overdue > interval '0'
  union all
  -- A minute of 100,000 signals.
  select
    'signals_to_roll_up', coalesce(sum(account.last_seq - coalesce(head.seq, 0)), 0), 'signals',
    coalesce(sum(account.last_seq - coalesce(head.seq, 0)), 0) <= 100000, null
  from private.accounts as account
  left join private.rollup_heads as head on head.account_no = account.account_no
  union all
  -- An open transaction keeps every version of a row that it might still read.
  select
    'oldest_transaction', round(coalesce(max(extract(epoch from now() - session.xact_start)), 0)),
    'seconds', coalesce(max(now() - session.xact_start) < interval '1 hour', true),
    (array_agg(session.usename order by session.xact_start))[1]
  from pg_stat_activity as session
  where session.xact_start is not null
$$;

comment on function private.lag_checks is 'The checks of operations_health on what waits for jobs.';

create function private.size_checks()
returns setof private.health_check
language sql
stable
set search_path = ''
as $$
  select 'bytes_' || kind.name, sum(pg_total_relation_size(tree.relid)), 'bytes', true, null
  from (
    values
    ('hot', 'private.signals'), ('packed', 'private.segments'), ('rollups', 'private.rollups'),
    ('events', 'private.signal_events'), ('ledger', 'private.batches'),
    ('ledger', 'private.advances'), ('audit', 'audit.links')
  ) as kind (name, parent)
  cross join lateral pg_partition_tree(kind.parent::regclass) as tree
  group by kind.name
  union all
  select
    'audit_links', coalesce(sum(class.reltuples) filter (where class.reltuples > 0), 0)::numeric,
    'links', true, null
  from pg_partition_tree('audit.links') as tree
  inner join pg_class as class on class.oid = tree.relid
  where tree.isleaf
$$;

comment on function private.size_checks is
'The sizes in operations_health. The number of audit links is as of the last ANALYZE.';

create function private.message_partitions_end()
returns timestamptz
language sql
stable
set search_path = ''
as $$
  select max(
    substring(pg_get_expr(class.relpartbound, class.oid) from ' TO \(''([^'']+)''\)')::timestamp
  ) at time zone 'utc'
  from pg_catalog.pg_inherits as child
  inner join pg_catalog.pg_class as class on class.oid = child.inhrelid
  where child.inhparent = 'realtime.messages'::regclass
$$;

comment on function private.message_partitions_end is
'Up to when the Realtime server has made partitions: without one, nothing can be broadcast.';

create function private.broadcast_checks()
returns setof private.health_check
language sql
stable
set search_path = ''
as $$
  select
    'broadcast_runway',
    round(extract(epoch from private.message_partitions_end() - now()) / 86400, 1), 'days',
    coalesce(private.message_partitions_end() - now() > interval '1 day', false), null
  union all
  select
    'broadcasts_failing', count(*)::numeric, 'accounts', count(*) = 0,
    (array_agg(pending.last_error order by pending.due_at desc))[1]
  from private.pending_broadcasts as pending
  where pending.failures > 0
  union all
  select
    'broadcasts_overdue',
    round(coalesce(max(extract(epoch from clock_timestamp() - pending.due_at)), 0)), 'seconds',
    coalesce(max(clock_timestamp() - pending.due_at) < interval '15 seconds', true), null
  from private.pending_broadcasts as pending
  where pending.due_at < clock_timestamp()
  union all
  select
    'broadcast_interval', round(extract(epoch from state.broadcast_interval), 3), 'seconds', true,
    case when settings.broadcast_min_interval is not null then 'set by an operator' end
  from private.live_state as state
  cross join private.live_settings as settings
$$;

comment on function private.broadcast_checks is
'The checks of operations_health on live delivery as far as the database sees it.';

create function private.canary_checks()
returns setof private.health_check
language sql
stable
set search_path = ''
as $$
  select
    check_of.name, check_of.value, check_of.unit, seen.runs = 0 or check_of.ok,
    case when seen.runs = 0 then 'has not run' when not check_of.ok then seen.error end
  from (
    select
      count(*) as runs,
      extract(epoch from clock_timestamp()
        - max(run.started_at) filter (where run.milliseconds is not null)) as age,
      (array_agg(run.milliseconds order by run.started_at desc)
        filter (where run.milliseconds is not null))[1] as milliseconds,
      count(*) filter (
        where run.milliseconds is null
          and run.started_at > clock_timestamp() - interval '1 hour'
          -- Else it may still be waiting.
          and (run.error is not null or run.started_at < clock_timestamp() - interval '1 minute')
      ) as failures,
      (array_agg(run.error order by run.started_at desc) filter (where run.error is not null))[1]
        as error
    from private.canary_runs as run
  ) as seen
  cross join lateral (
    values
    ('canary_age', round(seen.age), 'seconds', coalesce(seen.age < 1800, false)),
    (
      'canary_latency', round(seen.milliseconds::numeric, 1), 'milliseconds',
      coalesce(seen.milliseconds < 1000, false)
    ),
    ('canary_failures', seen.failures::numeric, 'runs', seen.failures = 0)
  ) as check_of (name, value, unit, ok)
$$;

comment on function private.canary_checks is
'The checks of operations_health on live delivery as the canary sees it: since when it has last received
its broadcast, how long that took, and how often it did not in the last hour.';

create function private.operations_health()
returns setof private.health_check
language sql
stable
security definer
set search_path = ''
as $$
  select each.* from private.partition_checks() as each
  union all
  select each.* from private.job_checks() as each
  union all
  select each.* from private.lag_checks() as each
  union all
  select each.* from private.broadcast_checks() as each
  union all
  select each.* from private.canary_checks() as each
  union all
  select each.* from private.size_checks() as each
$$;

comment on function private.operations_health is 'Body of public.operations_health.';

create view public.operations_health
with (security_invoker = true)
as
select
  health.name,
  health.value,
  health.unit,
  health.ok,
  health.hint
from private.operations_health() as health;

comment on view public.operations_health is
'One row a check: what is measured, whether it is well, and what the worst case is. For operators:
service_role only; docs/operations.md says what to do.';

grant execute on function private.operations_health to service_role;
grant select on public.operations_health to service_role;
