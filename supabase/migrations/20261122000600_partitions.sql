-- Daily partitions of the signals, made ahead by pg_partman (the only migration that names it).
-- The window of generated_at is 7 days back to 1 minute ahead, so 8 days back are made at once.
-- Must never break: the DEFAULT partition stays empty, since a row there blocks the next partition.

do $$
begin
  if not exists (
    select from partman.part_config where parent_table = 'private.signals'
  ) then
    perform partman.create_parent(
      p_parent_table := 'private.signals',
      p_control := 'generated_at',
      p_type := 'range',
      p_interval := '1 day',
      p_premake := 4,
      p_start_partition := (date_trunc('day', now(), 'utc') - interval '8 days')::text
    );
    update partman.part_config
    set infinite_time_partitions = true
    where parent_table = 'private.signals';
  end if;
end
$$;

create function private.maintain_partitions()
returns integer
language plpgsql
security definer
set search_path = ''
-- Whoever queues behind this waits as long as it does. Days are made ahead, so giving up is safe.
set lock_timeout = '2s'
as $$
declare
  v_partition regclass;
  v_closed integer := 0;
begin
  -- Two at once would wait for each other's locks: the second has nothing left to do.
  if not pg_try_advisory_xact_lock(hashtext('private.maintain_partitions')) then
    return 0;
  end if;
  perform partman.run_maintenance('private.signals', p_analyze := false);
  -- Row-level security is not inherited. No role has a grant on a partition; should one ever be
  -- given by mistake, it shows no row.
  for v_partition in
    select child.oid
    from pg_catalog.pg_inherits
    inner join pg_catalog.pg_class as child on child.oid = inhrelid
    where inhparent = 'private.signals'::regclass and not child.relrowsecurity
  loop
    execute format('alter table %s enable row level security', v_partition);
    v_closed := v_closed + 1;
  end loop;
  return v_closed;
end
$$;

comment on function private.maintain_partitions is
'Makes the partitions of the coming days and closes them; returns how many. Run by pg_cron.';

select private.maintain_partitions();
