-- How long data is kept, as rows, and the job that drops what is past it.
-- Partitions are dropped whole once every row in them is past; nothing is ever deleted row by row.
-- Must never break: what the present tier of an account still keeps is never dropped.

create table private.retention (
  data text not null,
  tier text not null references private.tiers (tier),
  keep interval,
  primary key (data, tier),
  constraint data_is_known check (data in ('signals', '1h', '1d', 'ledger')),
  -- Late signals, and retries of a batch, come for 7 days.
  constraint keep_is_7_days_or_more check (keep >= interval '7 days')
);

comment on table private.retention is
'How long each kind of data is kept for accounts of a tier: signals (and with them rollups of 1m,
which are made of them), rollups of 1h and 1d, and the ledger that answers repeated requests.';
comment on column private.retention.keep is
'Null means for ever. What is stored for all tiers together goes by the longest of them.';

insert into private.retention (data, tier, keep)
select kept.data, tier.tier, kept.keep
from private.tiers as tier
cross join (
  values
  ('signals', null::interval), ('1h', '30 days'), ('1d', '1 year'), ('ledger', '14 days')
) as kept (data, keep);

create function private.kept_since(
  data text,
  tier text default null
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select
      case when count(*) = count(retention.keep) then private.clock() - max(retention.keep)
        else '-infinity' end
    from private.retention as retention
    where retention.data = kept_since.data
      and retention.tier = coalesce(kept_since.tier, retention.tier)
  );
end
$$;

comment on function private.kept_since is
'The time from which on data of accounts of this tier, or of any tier, is kept.';

create function private.expired_partitions()
returns table (
  parent text,
  tier text,
  partition regclass,
  starts timestamptz,
  ends timestamptz,
  past interval
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select
      made.parent, partition_set.tier, made.partition, made.starts, made.ends,
      kept.since - made.ends
    from private.partition_sets as partition_set
    cross join lateral private.kept_since(partition_set.data, partition_set.tier) as kept (since)
    inner join private.partitions as made on made.parent = partition_set.parent
    where made.ends <= kept.since
      -- The expiry job reads the ledger.
      and not (made.parent = 'private.batches' and exists (
        select
        from private.batches as batch
        inner join private.expiry_progress as progress
          on progress.read_before <= batch.transaction_id
        where batch.received_at >= made.starts and batch.received_at < made.ends))
    order by made.ends, made.parent;
end
$$;

comment on function private.expired_partitions is
'The partitions in which every row is past its retention, and for how long; the oldest first.';

create function private.day_is_empty(partition regclass)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_has_rows boolean;
begin
  execute format('select exists (select from %s)', day_is_empty.partition) into v_has_rows;
  -- Packed rows stay in the file for readers that began before, until reclaim_step empties it.
  return not v_has_rows and not exists (
    select
    from private.partitions as made
    inner join private.days as day on day.starts = made.starts
    where made.partition = day_is_empty.partition and day.last_packed_by is not null);
end
$$;

comment on function private.day_is_empty is
'Whether a partition of the heap holds no signal, not even for an old reader.';

create function private.emptied_days()
returns table (partition regclass)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select past.partition
    from (
      select made.partition
      from private.partitions as made
      where made.parent = 'private.signals' and made.ends <= private.clock() - interval '8 days'
      order by made.ends
      offset 0
    ) as past
    where private.day_is_empty(past.partition)
    limit 10;
end
$$;

comment on function private.emptied_days is
'The oldest partitions of the heap that take no more signals and hold none.';

create function private.rehome_segments()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_expired record;
  v_segments bigint[];
begin
  for v_expired in
    select expired.*, kept.tier as kept_tier
    from private.expired_partitions() as expired
    inner join private.tiers as kept on private.kept_since('signals', kept.tier) < expired.ends
    where expired.parent = 'private.segments_' || expired.tier
  loop
    v_segments := array(
      select segment.segment_no
      from private.segments as segment
      inner join private.accounts as account on account.account_no = segment.account_no
      where segment.tier = v_expired.tier
        and segment.first_generated_at >= v_expired.starts
        and segment.first_generated_at < v_expired.ends
        and account.tier = v_expired.kept_tier
      limit 100);
    continue when cardinality(v_segments) = 0;
    perform private.ensure_partitions(
      'private.segments_' || v_expired.kept_tier, v_expired.starts, v_expired.starts);
    update private.segments as segment
    set tier = v_expired.kept_tier
    where segment.tier = v_expired.tier
      and segment.first_generated_at >= v_expired.starts
      and segment.first_generated_at < v_expired.ends
      and segment.segment_no = any(v_segments);
    return cardinality(v_segments);
  end loop;
  return 0;
end
$$;

comment on function private.rehome_segments is
'Moves up to 100 segments out of partitions that are about to be dropped: those of accounts whose
present tier keeps them longer than the tier that they were packed under. Returns how many.';

create function private.drop_partition(
  parent text,
  partition regclass
)
returns boolean
language plpgsql
set search_path = ''
-- Whoever queues behind this waits as long as it does.
set lock_timeout = '200ms'
as $$
begin
  execute format(
    'lock table only %s in access exclusive mode', drop_partition.parent::regclass);
  if drop_partition.parent = 'private.signals'
    and not private.day_is_empty(drop_partition.partition) then
    return false;
  end if;
  execute format('drop table %s', drop_partition.partition);
  return true;
exception
  when lock_not_available then
    return false;
end
$$;

comment on function private.drop_partition is
'Drops a partition; false, with nothing done, while others use the table or the day is not empty.';

create function private.retention_step()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_moved bigint := private.rehome_segments();
  v_parent text;
  v_partition regclass;
  v_busy text[] := array[]::text[];
begin
  if v_moved > 0 then
    return v_moved;
  end if;
  for v_parent, v_partition in
    select expired.parent, expired.partition from private.expired_partitions() as expired
    union all
    select 'private.signals', emptied.partition from private.emptied_days() as emptied
  loop
    continue when v_parent = any(v_busy);
    if private.drop_partition(v_parent, v_partition) then
      return 1;
    end if;
    v_busy := v_busy || v_parent;
  end loop;
  return private.forget_runs();
end
$$;

comment on function private.retention_step is
'Drops one partition that is past its retention, or the empty one of a day of the heap; before that
it moves what is still kept out of it. Returns 0 when nothing more can be dropped now.';

alter table private.retention enable row level security;

create policy members_read_retention on private.retention
for select to authenticated using (tier is not null);

grant select on private.retention to authenticated, service_role;
grant execute on function private.kept_since to authenticated;
