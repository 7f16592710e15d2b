-- Packing: what is older than a day moves from the table signals to segments, merged later.
-- A step is one short transaction that deletes rows and inserts the segments that hold them: every
-- snapshot, however old, has each signal once, and a kill at any point changes nothing.
-- Must never break: signals are moved only up to packed_until of their account, which an earlier
-- transaction has raised: up to there ingest looks for duplicates in the segments, too.

-- decision 0008 tells why rows are deleted rather than partitions dropped, and what that costs.
create table private.days (
  starts timestamptz primary key,
  packed_account_no integer not null default 0,
  packed_generated_at timestamptz not null default '-infinity',
  packed_at timestamptz,
  last_packed_by xid8
);

comment on table private.days is
'How far the packing of each day of private.signals has come. A day is packed when it has been over
for 24 hours, and again every night for the signals that came late.';
comment on column private.days.packed_account_no is
'With packed_generated_at: the place that the pass under way has reached, in the order of both.';
comment on column private.days.packed_at is 'When a pass last came to its end.';
comment on column private.days.last_packed_by is
'The last transaction that took signals out; null once their space has been given back.';

create table private.account_passes (
  pass text primary key,
  account_no integer not null default 0,
  finished_at timestamptz not null default '-infinity'
);

comment on table private.account_passes is
'The jobs that look at every account once an hour, and the account that each has come to.';

insert into private.account_passes (pass) values ('early'), ('merge');

create type private.chunk as (
  account_nos integer [],
  from_account_no integer,
  from_time timestamptz,
  to_account_no integer,
  to_time timestamptz,
  starts timestamptz,
  ends timestamptz
);

comment on type private.chunk is
'Signals of these accounts from starts to before ends that come after (from_account_no, from_time)
and up to (to_account_no, to_time), in the order of account_no and generated_at.';

create function private.segment_size(merged boolean)
returns integer
language sql
immutable
set search_path = ''
as $$ select case when segment_size.merged then 4000 else 2000 end $$;

comment on function private.segment_size is
'How many signals a segment holds, give or take a half: larger ones are smaller per signal and
slower to read a page of. docs/decisions/0008 has the figures.';

create function private.segment_parts(
  signals private.signals[],
  size integer
)
returns table (
  account_no integer,
  times timestamptz[],
  seqs bigint[],
  trader_nos integer[],
  symbols text[],
  timeframes smallint[],
  actions smallint[],
  confidences double precision[],
  prices double precision[],
  stop_losses double precision[],
  take_profits double precision[],
  valid_fors interval[],
  metadata jsonb[]
)
language sql
stable
set search_path = ''
as $$
  select
    account.account_no, account.times[part.first:part.last], account.seqs[part.first:part.last],
    account.trader_nos[part.first:part.last], account.symbols[part.first:part.last],
    account.timeframes[part.first:part.last], account.actions[part.first:part.last],
    account.confidences[part.first:part.last], account.prices[part.first:part.last],
    account.stop_losses[part.first:part.last], account.take_profits[part.first:part.last],
    account.valid_fors[part.first:part.last], account.metadata[part.first:part.last]
  from (
    select
      signal.account_no,
      -- Metadata counts by its size, lest a page of few signals have to unpack megabytes.
      1 + coalesce(sum(pg_column_size(signal.metadata)), 0) / 250.0 / count(*) as weight,
      array_agg(signal.generated_at order by signal.generated_at, signal.seq) as times,
      array_agg(signal.seq order by signal.generated_at, signal.seq) as seqs,
      array_agg(signal.trader_no order by signal.generated_at, signal.seq) as trader_nos,
      array_agg(signal.symbol order by signal.generated_at, signal.seq) as symbols,
      array_agg(signal.timeframe order by signal.generated_at, signal.seq) as timeframes,
      array_agg(signal.action order by signal.generated_at, signal.seq) as actions,
      array_agg(signal.confidence order by signal.generated_at, signal.seq) as confidences,
      array_agg(signal.price order by signal.generated_at, signal.seq) as prices,
      case when count(signal.stop_loss) > 0 then
        array_agg(signal.stop_loss order by signal.generated_at, signal.seq) end as stop_losses,
      case when count(signal.take_profit) > 0 then
        array_agg(signal.take_profit order by signal.generated_at, signal.seq) end as take_profits,
      case when count(signal.valid_until) > 0 then
        array_agg(
          case
            when signal.valid_until - signal.generated_at < interval '1 day'
              then signal.valid_until - signal.generated_at
            -- Each day of the difference becomes 24 hours.
            else signal.valid_until - signal.generated_at
              + extract(day from signal.valid_until - signal.generated_at)::integer
              * (interval '24 hours' - interval '1 day')
          end
          order by signal.generated_at, signal.seq) end as valid_fors,
      case when count(signal.metadata) > 0 then
        array_agg(signal.metadata order by signal.generated_at, signal.seq) end as metadata
    from unnest(segment_parts.signals) as signal
    group by signal.account_no, signal.seq | private.seq_block()
  ) as account
  cross join lateral generate_series(
    date_trunc('month', account.times[1], 'utc'), account.times[cardinality(account.times)],
    '1 month', 'utc'
  ) as month (starts)
  -- The times are in order: width_bucket finds by bisection how many come before another.
  cross join lateral (
    select
      width_bucket(month.starts - interval '1 microsecond', account.times) as before,
      width_bucket(
        date_add(month.starts, interval '1 month', 'utc') - interval '1 microsecond', account.times
      ) as upto
  ) as cut
  cross join lateral (
    select
      cut.upto - cut.before as signals,
      greatest(1, round((cut.upto - cut.before) * account.weight / segment_parts.size))::bigint
        as parts
  ) as held
  cross join lateral generate_series(1, held.parts) as number
  cross join lateral (
    select
      (cut.before + (number - 1) * held.signals / held.parts + 1)::integer as first,
      (cut.before + number * held.signals / held.parts)::integer as last
  ) as part
  where held.signals > 0
$$;

comment on function private.segment_parts is
'The signals in the order of time, cut by account, block of seq and month and then into parts of about
this size: one row a segment, its columns in arrays.';

create function private.store_segments(
  signals private.signals[],
  tier text default null,
  merged boolean default false
)
returns bigint
language plpgsql
set search_path = ''
as $$
begin
  insert into private.segments (
    account_no, tier, merged, signals, first_generated_at, last_generated_at, first_seq, last_seq,
    confidence_min, confidence_max, confidence_sum, price_min, price_max, price_sum, price_first,
    price_last, trader_nos, symbols, timeframes, actions, generated_at_values, seq_offsets,
    trader_no_values, symbol_positions, timeframe_values, action_values, confidence_values,
    price_values, stop_loss_values, take_profit_values, valid_for_values, metadata_values
  )
  select
    part.account_no, coalesce(store_segments.tier, account.tier), store_segments.merged,
    cardinality(part.seqs), part.times[1], part.times[cardinality(part.times)],
    seq.first, seq.last, confidence.min, confidence.max, confidence.sum, price.min, price.max,
    price.sum, part.prices[1], part.prices[cardinality(part.prices)],
    array(select distinct value from unnest(part.trader_nos) as value order by value),
    symbol.dictionary,
    array(select distinct value from unnest(part.timeframes) as value order by value),
    array(select distinct value from unnest(part.actions) as value order by value),
    part.times,
    array(
      select value - seq.first + 1 - position
      from unnest(part.seqs) with ordinality as each (value, position)),
    part.trader_nos,
    -- The dictionary is in order, so the number of its words up to this one is its position.
    array(
      select width_bucket(value collate "C", symbol.dictionary)::smallint
      from unnest(part.symbols) as value),
    part.timeframes, part.actions, part.confidences, part.prices, part.stop_losses,
    part.take_profits, part.valid_fors, part.metadata
  from private.segment_parts(
    store_segments.signals, private.segment_size(store_segments.merged)) as part
  -- Not an inner join: a signal whose account is missing must fail rather than vanish.
  left join private.accounts as account on account.account_no = part.account_no
  cross join lateral (
    select min(value) as first, max(value) as last from unnest(part.seqs) as value
  ) as seq
  cross join lateral (
    select min(value), max(value), sum(value) from unnest(part.confidences) as value
  ) as confidence
  cross join lateral (
    select min(value), max(value), sum(value) from unnest(part.prices) as value
  ) as price
  cross join lateral (
    select array(
      select distinct value collate "C" from unnest(part.symbols) as value order by 1) as dictionary
    offset 0
  ) as symbol;
  return cardinality(store_segments.signals);
end
$$;

comment on function private.store_segments is
'Packs the signals into segments of their accounts, under this tier or each account''s own, and
returns how many signals. Nothing keeps a signal from being packed twice: the caller has taken them
from where they were, in this transaction, or has seen under the lock of the account that they are
new.';

create function private.take_chunk(chunk private.chunk)
returns bigint
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_signals private.signals[];
begin
  with taken as (
    delete from private.signals as signal
    where signal.account_no = any(chunk.account_nos)
      and (signal.account_no, signal.generated_at) > (chunk.from_account_no, chunk.from_time)
      and (signal.account_no, signal.generated_at) <= (chunk.to_account_no, chunk.to_time)
      and signal.generated_at >= chunk.starts
      and signal.generated_at < chunk.ends
    returning signal
  )
  select array_agg(taken.signal) into v_signals from taken;
  if v_signals is null then
    return 0;
  end if;
  perform private.store_segments(v_signals);
  insert into private.days as day (starts, last_packed_by)
  select distinct date_trunc('day', signal.generated_at, 'utc'), pg_current_xact_id()
  from unnest(v_signals) as signal
  on conflict (starts) do update set last_packed_by = excluded.last_packed_by;
  return cardinality(v_signals);
end
$$;

comment on function private.take_chunk is
'Moves the signals of a chunk into segments and returns how many. packed_until of the accounts was
raised to the end of the chunk by a transaction that has committed.';

create function private.announce_packing(
  account_nos integer[],
  until timestamptz
)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_announced bigint;
begin
  -- Accounts that are being written to are left for the next step: to wait for one of them would
  -- keep the writers of those already locked waiting, too.
  with idle as (
    select account.account_no
    from private.accounts as account
    where account.account_no = any(announce_packing.account_nos)
      and account.packed_until < announce_packing.until
    for no key update skip locked
  )
  update private.accounts as account
  set packed_until = announce_packing.until
  from idle
  where account.account_no = idle.account_no;
  get diagnostics v_announced = row_count;
  if v_announced = 0 then
    update private.accounts as account
    set packed_until = announce_packing.until
    where account.account_no = (
      select busy.account_no
      from private.accounts as busy
      where busy.account_no = any(announce_packing.account_nos)
        and busy.packed_until < announce_packing.until
      limit 1);
    get diagnostics v_announced = row_count;
  end if;
  return v_announced;
end
$$;

comment on function private.announce_packing is
'Raises packed_until of the accounts, and returns for how many it had to be: 0 when all knew before.
While it returns more, nothing of theirs may be moved in this transaction.';

create function private.due_day()
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select made.starts
    from private.partitions as made
    left join private.days as day on day.starts = made.starts
    where made.parent = 'private.signals'
      and made.ends <= private.clock() - interval '24 hours'
      and (
        day.packed_at is null or day.packed_at < date_trunc('day', private.clock(), 'utc'))
    order by made.starts
    limit 1);
end
$$;

comment on function private.due_day is
'The oldest day that has been over for 24 hours and that no pass has come to the end of today.';

create function private.next_chunk(day private.days)
returns private.chunk
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_chunk private.chunk;
begin
  v_chunk.from_account_no := day.packed_account_no;
  v_chunk.from_time := day.packed_generated_at;
  v_chunk.starts := day.starts;
  v_chunk.ends := day.starts + interval '24 hours';
  select
    array_agg(account.account_no order by account.account_no), max(account.account_no),
    (array_agg(account.to_time order by account.account_no desc))[1]
  into v_chunk.account_nos, v_chunk.to_account_no, v_chunk.to_time
  from (
    select signal.account_no, max(signal.generated_at) as to_time
    from (
      select next.account_no, next.generated_at
      from private.signals as next
      where (next.account_no, next.generated_at) > (v_chunk.from_account_no, v_chunk.from_time)
        and next.generated_at >= v_chunk.starts
        and next.generated_at < v_chunk.ends
      order by next.account_no, next.generated_at
      limit 20000
    ) as signal
    group by signal.account_no
    order by signal.account_no
    limit 1000
  ) as account;
  return v_chunk;
end
$$;

comment on function private.next_chunk is
'What one step of the pass over a day moves: at most 20,000 signals, those generated at the same
time as the last included, of at most 1,000 accounts.';

create function private.pack_day(starts timestamptz)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_day private.days;
  v_chunk private.chunk;
  v_progress bigint;
begin
  insert into private.days (starts) values (pack_day.starts) on conflict do nothing;
  select day.* into v_day from private.days as day where day.starts = pack_day.starts;
  v_chunk := private.next_chunk(v_day);
  if v_chunk.account_nos is null then
    update private.days as day
    set packed_at = private.clock(), packed_account_no = default, packed_generated_at = default
    where day.starts = pack_day.starts;
    return 1;
  end if;
  v_progress := private.announce_packing(
    v_chunk.account_nos, v_chunk.ends - interval '1 microsecond');
  if v_progress = 0 then
    v_progress := private.take_chunk(v_chunk);
    update private.days as day
    set packed_account_no = v_chunk.to_account_no, packed_generated_at = v_chunk.to_time
    where day.starts = pack_day.starts;
  end if;
  return v_progress;
end
$$;

comment on function private.pack_day is
'One step of the pass over a day; returns how many signals or accounts it got on by.';

create function private.pass_place(pass text)
returns integer
language sql
stable
set search_path = ''
as $$
  select pass.account_no
  from private.account_passes as pass
  where pass.pass = pass_place.pass
    and pass.finished_at < date_trunc('hour', private.clock(), 'utc')
$$;

comment on function private.pass_place is
'The account that a pass has come to; null when it was finished in this hour.';

create function private.advance_pass(
  pass text,
  account_no integer
)
returns void
language sql
set search_path = ''
as $$
  update private.account_passes as pass
  set
    account_no = case when place.is_end then 0 else advance_pass.account_no end,
    finished_at = case when place.is_end then private.clock() else pass.finished_at end
  from (
    select not exists (
      select from private.accounts as account
      where account.account_no > advance_pass.account_no) as is_end
  ) as place
  where pass.pass = advance_pass.pass
$$;

comment on function private.advance_pass is
'Notes that a pass is done with the accounts up to this one, or with all of them.';

create function private.account_beyond_hot(
  after_account_no integer,
  to_account_no integer,
  out account_no integer,
  out packed_until timestamptz,
  out until timestamptz
)
language sql
stable
set search_path = ''
as $$
  select account.account_no, account.packed_until, (
    -- Down to nine tenths, so that it is not done again for every signal.
    select signal.generated_at
    from private.signals as signal
    where signal.account_no = account.account_no
    order by signal.generated_at desc
    limit 1 offset tier.hot_signals * 9 / 10)
  from private.accounts as account
  inner join private.tiers as tier on tier.tier = account.tier
  where account.account_no > account_beyond_hot.after_account_no
    and account.account_no <= account_beyond_hot.to_account_no
    -- seq has no gaps: from the oldest seq in the table it is seen who cannot have too many there.
    and account.last_seq - tier.hot_signals >= (
      select min(signal.seq) from private.signals as signal
      where signal.account_no = account.account_no)
    and exists (
      select from private.signals as signal
      where signal.account_no = account.account_no
      offset tier.hot_signals)
  order by account.account_no
  limit 1
$$;

comment on function private.account_beyond_hot is
'The first of these accounts that has more signals in hot storage than its tier allows, and the time
up to which they are to be packed.';

create function private.pack_early()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_place integer := private.pass_place('early');
  v_early record;
  v_to_time timestamptz;
begin
  if v_place is null then
    return 0;
  end if;
  select beyond.* into v_early
  from private.account_beyond_hot(v_place, v_place + 1000) as beyond;
  perform private.advance_pass('early', coalesce(v_early.account_no - 1, v_place + 1000));
  if v_early.until is null then
    return 1;
  end if;
  select max(oldest.generated_at) into v_to_time
  from (
    select signal.generated_at
    from private.signals as signal
    where signal.account_no = v_early.account_no
      and signal.generated_at <= v_early.packed_until
    order by signal.generated_at
    limit 20000
  ) as oldest;
  if v_to_time is null then
    return private.announce_packing(array[v_early.account_no], v_early.until);
  end if;
  return private.take_chunk((
    array[v_early.account_no], v_early.account_no, '-infinity', v_early.account_no, v_to_time,
    '-infinity', 'infinity'));
end
$$;

comment on function private.pack_early is
'One step of the pass over the accounts that have more signals in hot storage than their tier
allows.';

create function private.pack_step()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_day timestamptz;
begin
  if not pg_try_advisory_xact_lock(hashtext('private.pack_step')) then
    return 0;
  end if;
  v_day := private.due_day();
  if v_day is not null then
    return private.pack_day(v_day);
  end if;
  return private.pack_early();
end
$$;

comment on function private.pack_step is
'Moves the next signals that are due from the table to segments, or prepares that; 0 when none is
due.';

create function private.snapshot_is_open(before xid8)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  if not pg_has_role('pg_read_all_stats', 'usage') then
    raise exception 'Cannot tell which snapshots are open: the role % lacks pg_read_all_stats.',
      current_user;
  end if;
  -- Ages rather than numbers: backend_xmin has no epoch. A prepared transaction reads no more.
  return exists (
    select
    from (
      select session.backend_xmin
      from pg_stat_activity as session
      where session.pid <> pg_backend_pid()
      union all
      select slot.xmin
      from pg_replication_slots as slot
    ) as snapshot (xmin)
    where age(snapshot.xmin) >= age(snapshot_is_open.before::xid));
end
$$;

comment on function private.snapshot_is_open is
'Whether somebody, here or on a standby that reports back, may still see what was there before this
transaction.';

create function private.truncate_day(starts timestamptz)
returns boolean
language plpgsql
set search_path = ''
-- Whoever queues behind this waits as long as it does. It is tried again.
set lock_timeout = '100ms'
as $$
declare
  v_partition regclass := (
    select made.partition from private.partitions as made
    where made.parent = 'private.signals' and made.starts = truncate_day.starts);
  v_seen xid8 := pg_snapshot_xmin(pg_current_snapshot());
  v_has_rows boolean;
begin
  execute format('select exists (select from %s)', v_partition) into v_has_rows;
  if v_has_rows then
    return false;
  end if;
  execute format('lock table %s in access exclusive mode', v_partition);
  -- To look again could take long, and now everybody waits. Whoever has stored a signal since the
  -- first look has written into the ledger, too.
  if exists (
    select from private.batches as batch
    where batch.transaction_id >= v_seen
      and batch.first_generated_at < truncate_day.starts + interval '24 hours'
      and batch.last_generated_at >= truncate_day.starts
  ) then
    return false;
  end if;
  execute format('truncate %s', v_partition);
  return true;
exception
  when lock_not_available then
    return false;
end
$$;

comment on function private.truncate_day is
'Gives the space of a day back of which all signals are packed; false, with nothing done, when one
is not or while others use the partition. No snapshot may be open that still sees them there.';

create function private.reclaim_step()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_day private.days;
begin
  -- Retention drops the partition of a day that is empty.
  delete from private.days as day
  where not exists (
    select from private.partitions as made
    where made.parent = 'private.signals' and made.starts = day.starts);
  for v_day in
    select day.* from private.days as day
    where day.packed_at is not null and day.packed_account_no = 0
      and day.last_packed_by is not null
    order by day.starts
  loop
    continue when private.snapshot_is_open(v_day.last_packed_by);
    if private.truncate_day(v_day.starts) then
      update private.days as day set last_packed_by = null where day.starts = v_day.starts;
      return 1;
    end if;
  end loop;
  return 0;
end
$$;

comment on function private.reclaim_step is
'Gives back the space of one day that has been packed; 0 when there is none, or none that may be
now.';

create type private.merge as (
  account_no integer,
  tier text,
  month timestamptz,
  segment_nos bigint [],
  until timestamptz
);

comment on type private.merge is
'Segments of an account, tier and month whose signals, up to a time (null: all), are merged at
once.';

create function private.due_merge(
  after_account_no integer,
  to_account_no integer
)
returns private.merge
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  with warm as (
    select
      segment.account_no, segment.tier, date_trunc('month', segment.first_generated_at) as month,
      segment.segment_no, segment.signals, segment.first_generated_at, segment.last_generated_at,
      sum(segment.signals) over (
        partition by segment.account_no
        order by segment.first_generated_at desc, segment.segment_no
      ) - segment.signals as newer
    from private.segments as segment
    where not segment.merged
      and segment.account_no > due_merge.after_account_no
      and segment.account_no <= due_merge.to_account_no
  ),
  due as (
    select
      warm.*,
      sum(warm.signals) over (
        partition by warm.account_no, warm.tier, warm.month
        order by warm.first_generated_at, warm.segment_no
      ) as running
    from warm
    inner join private.accounts as account on account.account_no = warm.account_no
    inner join private.tiers as tier on tier.tier = account.tier
    -- Signals come up to 7 days late and are packed in the night after.
    where warm.last_generated_at < private.clock() - interval '8 days'
      or warm.newer >= tier.warm_signals
  )
  select
    due.account_no, due.tier, due.month,
    array_agg(due.segment_no) filter (where due.running <= 20000),
    min(due.first_generated_at) filter (where due.running > 20000)
  from due
  group by due.account_no, due.tier, due.month
  -- Less is worth a merge only when no more will come, or when there are many little ones.
  having sum(due.signals) >= private.segment_size(true)
    or count(*) >= 8
    or due.month + interval '1 month 8 days' <= private.clock()
  order by due.account_no, due.month
  limit 1
$$;

comment on function private.due_merge is
'The next segments to merge among these accounts: older than 8 days or beyond what the account''s
tier allows in warm storage, at most 20,000 signals; none when all is null.';

create function private.merge_segments(merge private.merge)
returns bigint
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_merged private.signals[];
  v_left private.signals[];
begin
  with taken as (
    delete from private.segments as segment
    where segment.account_no = merge.account_no
      and segment.tier = merge.tier
      and segment.first_generated_at >= merge.month
      and segment.first_generated_at < merge.month + interval '31 days'
      and segment.segment_no = any(merge.segment_nos)
    returning segment
  )
  select
    array_agg(signal) filter (where (signal.generated_at > merge.until) is not true),
    array_agg(signal) filter (where signal.generated_at > merge.until)
  into v_merged, v_left
  from taken
  cross join lateral private.unpacked_signals(taken.segment, 1, (taken.segment).signals) as signal;
  if v_left is not null then
    perform private.store_segments(v_left, merge.tier, false);
  end if;
  return private.store_segments(v_merged, merge.tier, true);
end
$$;

comment on function private.merge_segments is
'Merges segments. What they hold after merge.until stays behind in segments of its own, so that
merged segments do not overlap those of the next merge.';

create function private.merge_step()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_place integer;
  v_merge private.merge;
begin
  if not pg_try_advisory_xact_lock(hashtext('private.merge_step')) then
    return 0;
  end if;
  v_place := private.pass_place('merge');
  if v_place is null then
    return 0;
  end if;
  v_merge := private.due_merge(v_place, v_place + 1000);
  perform private.advance_pass('merge', coalesce(v_merge.account_no - 1, v_place + 1000));
  if v_merge.account_no is null then
    return 1;
  end if;
  return private.merge_segments(v_merge);
end
$$;

comment on function private.merge_step is
'Merges the next small segments that are due into larger ones; 0 when none are.';

alter table private.days enable row level security;
alter table private.account_passes enable row level security;
