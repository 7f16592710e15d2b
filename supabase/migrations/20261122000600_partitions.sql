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
as $$
declare
  v_before integer := (
    select count(*) from pg_catalog.pg_inherits
    where inhparent = 'private.signals'::regclass
  );
begin
  -- Two at once would wait for each other's locks: the second has nothing left to do.
  if not pg_try_advisory_xact_lock(hashtext('private.maintain_partitions')) then
    return 0;
  end if;
  perform partman.run_maintenance('private.signals', p_analyze := false);
  return (
    select count(*) from pg_catalog.pg_inherits
    where inhparent = 'private.signals'::regclass
  ) - v_before;
end
$$;

comment on function private.maintain_partitions is
'Makes the partitions of the coming days; returns how many it made. Run by pg_cron.';
