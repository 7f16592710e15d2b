-- Rollups: what each trader signalled per minute, hour and day, by symbol and timeframe.
-- Hours and days are stored, each signal merged in once, by its seq: private.rollup_heads says how
-- far an account has got. Minutes are not stored: query_rollups makes them from the signals.
-- Must never break: the stored rollups and the signals after the head together equal a recount.

create function private.bucket_width(resolution text)
returns interval
language sql
immutable
set search_path = ''
as $$
  select case bucket_width.resolution
    when '1m' then interval '1 minute'
    when '1h' then interval '1 hour'
    when '1d' then interval '24 hours'
  end
$$;

comment on function private.bucket_width is
'How long the buckets of a resolution are, null for what is none. They begin at whole minutes, hours
and days in UTC.';

create function private.stored_resolutions()
returns text[]
language sql
immutable
set search_path = ''
as $$ select array['1h', '1d'] $$;

comment on function private.stored_resolutions is
'The resolutions with rows in private.rollups. Minutes have none: so few signals are in one that
their sums would take more than the signals themselves.';

create table private.rollups (
  bucket timestamptz not null,
  first_generated_at timestamptz not null,
  last_generated_at timestamptz not null,
  confidence_sum double precision not null,
  confidence_squares double precision not null,
  confidence_min double precision not null,
  confidence_max double precision not null,
  price_sum double precision not null,
  price_squares double precision not null,
  price_min double precision not null,
  price_max double precision not null,
  price_first double precision not null,
  price_last double precision not null,
  account_no integer not null,
  trader_no integer not null,
  enter_long integer not null,
  exit_long integer not null,
  enter_short integer not null,
  exit_short integer not null,
  timeframe smallint not null,
  resolution text collate "C" not null,
  symbol text collate "C" not null,
  primary key (account_no, resolution, bucket, trader_no, symbol, timeframe)
) partition by list (resolution);

create table private.rollups_1h partition of private.rollups
for values in ('1h') partition by range (bucket);
create table private.rollups_1d partition of private.rollups
for values in ('1d') partition by range (bucket);

comment on table private.rollups is
'The signals of a trader, symbol and timeframe whose generated_at is in one bucket, summed up.';
comment on column private.rollups.bucket is 'When the bucket begins, in UTC.';
comment on column private.rollups.first_generated_at is
'generated_at of the signal that price_first is of. Within a bucket''s group no two are equal.';
comment on column private.rollups.confidence_squares is
'Sum of the squared distances from the mean: a plain sum of squares loses the digits that count.';
comment on column private.rollups.price_squares is 'As confidence_squares.';
comment on column private.rollups.enter_long is 'How many of the signals have this action.';

create table private.rollup_heads (
  seq bigint not null,
  rolled_up_at timestamptz not null,
  account_no integer primary key,
  constraint seq_is_not_negative check (seq >= 0)
);

comment on table private.rollup_heads is
'Per account, the seq up to which its signals are in the rollups. Since seq follows the commits and
has no gaps, nothing that commits later can be missed, whatever other transactions are open.';

create type private.seq_range as (
  account_no integer,
  first_seq bigint,
  last_seq bigint
);

comment on type private.seq_range is 'Signals of an account that follow each other by seq.';

create function private.rollups_of(
  signals private.signals[],
  resolution text
)
returns setof private.rollups
language sql
immutable
set search_path = ''
as $$
  select
    signal.bucket,
    min(signal.generated_at),
    max(signal.generated_at),
    -- What is much closer to 0 becomes 0: divided or squared it may be no double, which PostgreSQL
    -- refuses (22003). Other numbers stay as they are.
    sum(signal.confidence) + 1e-100 - 1e-100,
    regr_sxx(signal.confidence, signal.confidence) + 1e-200 - 1e-200,
    min(signal.confidence),
    max(signal.confidence),
    sum(signal.price) + 1e-100 - 1e-100,
    regr_sxx(signal.price, signal.price) + 1e-200 - 1e-200,
    min(signal.price),
    max(signal.price),
    (array_agg(signal.price order by signal.generated_at))[1],
    (array_agg(signal.price order by signal.generated_at))[count(*)],
    signal.account_no,
    signal.trader_no,
    (count(*) filter (where signal.word = 'enter_long'))::integer,
    (count(*) filter (where signal.word = 'exit_long'))::integer,
    (count(*) filter (where signal.word = 'enter_short'))::integer,
    (count(*) filter (where signal.word = 'exit_short'))::integer,
    signal.timeframe,
    rollups_of.resolution,
    signal.symbol
  from (
    select
      each.*,
      (private.actions())[each.action] as word,
      date_bin(wide.width, each.generated_at, timestamptz 'epoch') as bucket
    -- Looked up once, not for each signal.
    from (select private.bucket_width(rollups_of.resolution) as width offset 0) as wide
    cross join unnest(rollups_of.signals) as each
  ) as signal
  group by signal.account_no, signal.trader_no, signal.symbol, signal.timeframe, signal.bucket
$$;

comment on function private.rollups_of is
'The given signals, summed up at one resolution. A sum below 1e-116, and one of squares below 1e-216,
is 0.';

create function private.merged_rollup(
  stored private.rollups,
  added private.rollups
)
returns private.rollups
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_stored double precision :=
    stored.enter_long + stored.exit_long + stored.enter_short + stored.exit_short;
  v_added double precision :=
    added.enter_long + added.exit_long + added.enter_short + added.exit_short;
  v_weight double precision := v_stored * v_added / (v_stored + v_added);
begin
  -- The means of both parts lie apart: that too is distance from the common mean.
  stored.confidence_squares := stored.confidence_squares + added.confidence_squares
    + v_weight * (stored.confidence_sum / v_stored - added.confidence_sum / v_added) ^ 2;
  stored.price_squares := stored.price_squares + added.price_squares
    + v_weight * (stored.price_sum / v_stored - added.price_sum / v_added) ^ 2;
  stored.confidence_sum := stored.confidence_sum + added.confidence_sum;
  stored.price_sum := stored.price_sum + added.price_sum;
  stored.confidence_min := least(stored.confidence_min, added.confidence_min);
  stored.confidence_max := greatest(stored.confidence_max, added.confidence_max);
  stored.price_min := least(stored.price_min, added.price_min);
  stored.price_max := greatest(stored.price_max, added.price_max);
  if added.first_generated_at < stored.first_generated_at then
    stored.first_generated_at := added.first_generated_at;
    stored.price_first := added.price_first;
  end if;
  if added.last_generated_at > stored.last_generated_at then
    stored.last_generated_at := added.last_generated_at;
    stored.price_last := added.price_last;
  end if;
  stored.enter_long := stored.enter_long + added.enter_long;
  stored.exit_long := stored.exit_long + added.exit_long;
  stored.enter_short := stored.enter_short + added.enter_short;
  stored.exit_short := stored.exit_short + added.exit_short;
  return stored;
end
$$;

comment on function private.merged_rollup is
'One rollup of two that are of the same bucket and group but of different signals.';

create function private.merged_rollups(
  parts private.rollups[],
  row_limit integer
)
returns private.rollups[]
language plpgsql
immutable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return array(
    select
      case cardinality(same.parts)
        when 1 then same.parts[1] else private.merged_rollup(same.parts[1], same.parts[2]) end
    from (
      select part.bucket, part.trader_no, part.symbol, part.timeframe, array_agg(part) as parts
      from unnest(merged_rollups.parts) as part
      group by part.bucket, part.trader_no, part.symbol, part.timeframe
    ) as same
    order by same.bucket desc, same.trader_no desc, same.symbol desc, same.timeframe desc
    limit merged_rollups.row_limit);
end
$$;

comment on function private.merged_rollups is
'The first rollups of an account, newest first, given in one or two parts each.';

create function private.next_to_roll_up(signals integer)
returns setof private.seq_range
language sql
stable
set search_path = ''
as $$
  select
    behind.account_no,
    behind.seq + 1,
    behind.seq + least(behind.signals, next_to_roll_up.signals - behind.before)
  from (
    select
      waiting.*,
      sum(waiting.signals) over (
        order by waiting.rolled_up_at nulls first, waiting.account_no
      ) - waiting.signals as before
    from (
      select
        account.account_no,
        head.rolled_up_at,
        coalesce(head.seq, 0) as seq,
        account.last_seq - coalesce(head.seq, 0) as signals
      from private.accounts as account
      left join private.rollup_heads as head on head.account_no = account.account_no
      where account.last_seq > coalesce(head.seq, 0)
    ) as waiting
  ) as behind
  where behind.before < next_to_roll_up.signals
$$;

comment on function private.next_to_roll_up is
'What is not in the rollups yet, at most so many signals: the account that waits longest first.';

create function private.signals_in(ranges private.seq_range[])
returns private.signals[]
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_signals private.signals[] := array(
    select found.signal
    from unnest(signals_in.ranges) as range
    cross join lateral (
      select signal
      from private.signals as signal
      where signal.account_no = range.account_no
        and signal.seq between range.first_seq and range.last_seq
      offset 0
    ) as found
  );
begin
  -- What is new is nearly always in the heap. Only where seq has gaps there, segments are read too.
  if cardinality(v_signals) < (
    select sum(range.last_seq - range.first_seq + 1) from unnest(signals_in.ranges) as range
  ) then
    v_signals := array(
      select signal
      from unnest(signals_in.ranges) as range
      cross join lateral private.signals_by_seq(
        range.account_no, range.first_seq, range.last_seq) as signal
    );
  end if;
  return v_signals;
end
$$;

comment on function private.signals_in is
'The signals of all these ranges, packed or not, in no order.';

create function private.add_rollups(added private.rollups[])
returns void
language sql
set search_path = ''
as $$
  insert into private.rollups as stored
  select added.* from unnest(add_rollups.added) as added
  on conflict (account_no, resolution, bucket, trader_no, symbol, timeframe) do update set
    (
      first_generated_at, last_generated_at,
      confidence_sum, confidence_squares, confidence_min, confidence_max,
      price_sum, price_squares, price_min, price_max, price_first, price_last,
      enter_long, exit_long, enter_short, exit_short
    ) = (
      select
        merged.first_generated_at, merged.last_generated_at,
        merged.confidence_sum, merged.confidence_squares, merged.confidence_min,
        merged.confidence_max,
        merged.price_sum, merged.price_squares, merged.price_min, merged.price_max,
        merged.price_first, merged.price_last,
        merged.enter_long, merged.exit_long, merged.enter_short, merged.exit_short
      from private.merged_rollup(stored, excluded) as merged
    )
$$;

comment on function private.add_rollups is
'Merges rollups of signals that were never added before.';

create function private.roll_up(ranges private.seq_range[])
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_signals private.signals[] := private.signals_in(ranges);
  v_added private.rollups[] := array(
    select added
    from (
      select each.resolution, private.kept_since(each.resolution) as since
      from unnest(private.stored_resolutions()) as each (resolution)
      offset 0
    ) as kept
    cross join lateral private.rollups_of(v_signals, kept.resolution) as added
    where added.bucket >= kept.since
  );
begin
  perform private.ensure_partitions(
    'private.rollups_' || added.resolution, min(added.bucket), max(added.bucket))
  from unnest(v_added) as added
  group by added.resolution
  -- Late signals have their partitions; what was imported may be older than these.
  having min(added.bucket) < private.clock() - interval '8 days';
  perform private.add_rollups(v_added);
  insert into private.rollup_heads as head (account_no, seq, rolled_up_at)
  select range.account_no, range.last_seq, private.clock()
  from unnest(roll_up.ranges) as range
  on conflict (account_no) do update
  set seq = excluded.seq, rolled_up_at = excluded.rolled_up_at;
  return (
    select coalesce(sum(range.last_seq - range.first_seq + 1), 0)
    from unnest(roll_up.ranges) as range);
end
$$;

comment on function private.roll_up is
'Merges the signals of these ranges into the rollups; returns how many.';

create function private.roll_up_each(ranges private.seq_range[])
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_range private.seq_range;
  v_signals bigint := 0;
begin
  foreach v_range in array ranges loop
    begin
      v_signals := v_signals + private.roll_up(array[v_range]);
    exception
      when data_exception then
        raise warning 'Cannot roll up account % from seq %: % %',
          v_range.account_no, v_range.first_seq, sqlstate, sqlerrm
          using hint = 'It waits, and is tried again after the others.';
        insert into private.rollup_heads as head (account_no, seq, rolled_up_at)
        values (v_range.account_no, v_range.first_seq - 1, private.clock())
        on conflict (account_no) do update set rolled_up_at = excluded.rolled_up_at;
    end;
  end loop;
  return v_signals;
end
$$;

comment on function private.roll_up_each is
'As roll_up, but an account whose numbers cannot be summed up is left out, and goes to the end of the
queue. operations_health counts its signals as waiting.';

create function private.rollup_step()
returns bigint
language plpgsql
set search_path = ''
-- The lock is held for one step; who waits longer than some of them should say so.
set lock_timeout = '5s'
as $$
declare
  v_ranges private.seq_range[];
begin
  -- Two at once would merge the same signals twice.
  perform pg_advisory_xact_lock(hashtext('private.rollup_step'));
  v_ranges := array(select range from private.next_to_roll_up(10000) as range);
  begin
    return private.roll_up(v_ranges);
  exception
    -- Together is much faster; one by one shows whose numbers it is.
    when data_exception then
      return private.roll_up_each(v_ranges);
  end;
end
$$;

comment on function private.rollup_step is
'Merges the next 10,000 signals at most into the rollups; returns how many: 0 when all are in, or what
is next cannot be summed up.';

create function private.rollup_differences(of_account_no integer default null)
returns table (
  account_no integer,
  resolution text,
  bucket timestamptz,
  trader_no integer,
  symbol text,
  timeframe smallint,
  stored json,
  recounted json
)
language plpgsql
stable
set search_path = ''
as $$
#variable_conflict use_column
begin
  return query
  with kept as (
    select each.resolution, private.kept_since(each.resolution) as since
    from unnest(private.stored_resolutions()) as each (resolution)
  ),
  recounted as (
    select
      signal.account_no,
      kept.resolution,
      date_trunc(
        case kept.resolution when '1h' then 'hour' else 'day' end, signal.generated_at, 'UTC'
      ) as bucket,
      signal.trader_no,
      signal.symbol,
      signal.timeframe,
      count(*) as signals,
      array[
        count(*) filter (where signal.action = 1), count(*) filter (where signal.action = 2),
        count(*) filter (where signal.action = 3), count(*) filter (where signal.action = 4)
      ] as counts,
      array[min(signal.generated_at), max(signal.generated_at)] as times,
      array[
        min(signal.confidence), max(signal.confidence), min(signal.price), max(signal.price),
        (array_agg(signal.price order by signal.generated_at, signal.seq))[1],
        (array_agg(signal.price order by signal.generated_at desc, signal.seq desc))[1]
      ] as extremes,
      sum(signal.confidence) as confidence_sum,
      var_pop(signal.confidence) * count(*) as confidence_squares,
      sum(signal.price) as price_sum,
      sum(abs(signal.price)) as price_magnitude,
      var_pop(signal.price) * count(*) as price_squares
    from private.stored_signals as signal
    inner join private.rollup_heads as head
      on head.account_no = signal.account_no and signal.seq <= head.seq
    cross join kept
    where signal.generated_at >= kept.since
      and (of_account_no is null or signal.account_no = of_account_no)
    group by 1, 2, 3, 4, 5, 6
  )
  select
    account_no, resolution, bucket, trader_no, symbol, timeframe,
    row_to_json(stored), row_to_json(recounted)
  from (
    select rollup.* from private.rollups as rollup
    where of_account_no is null or rollup.account_no = of_account_no
  ) as stored
  full join recounted using (account_no, resolution, bucket, trader_no, symbol, timeframe)
  inner join kept using (resolution)
  where bucket >= kept.since
    and (
      array[stored.enter_long, stored.exit_long, stored.enter_short, stored.exit_short]::bigint[]
        = recounted.counts
      and array[stored.first_generated_at, stored.last_generated_at] = recounted.times
      and array[
        stored.confidence_min, stored.confidence_max, stored.price_min, stored.price_max,
        stored.price_first, stored.price_last] = recounted.extremes
      -- Sums of the same numbers differ in the last digits when their order differs.
      and abs(stored.confidence_sum - recounted.confidence_sum) <= 1e-12 * recounted.signals
      and abs(stored.confidence_squares - recounted.confidence_squares)
        <= 1e-12 * recounted.signals
      -- 1e-100 and its square are for what rollups_of makes 0.
      and abs(stored.price_sum - recounted.price_sum)
        <= 1e-12 * (recounted.price_magnitude + 1e-100)
      and abs(stored.price_squares - recounted.price_squares)
        <= 1e-9 * (recounted.price_squares + 1e-200)
          + 1e-14 * (recounted.price_magnitude + 1e-100) ^ 2 / recounted.signals
    ) is not true;
end
$$;

comment on function private.rollup_differences is
'Where stored rollups differ from a recount of the same signals: no row when all is well. It reads
everything that is stored of one account, or of all: for tests and for operators who doubt.';

alter table private.rollups enable row level security;
-- Row-level security is not inherited: whoever reached a partition would see no row there.
alter table private.rollups_1h enable row level security;
alter table private.rollups_1d enable row level security;
alter table private.rollup_heads enable row level security;

create policy members_read_own_rollups on private.rollups
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

create policy members_read_own_rollup_head on private.rollup_heads
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant select on private.rollups, private.rollup_heads to authenticated, service_role;

grant execute on function private.bucket_width to authenticated;
grant execute on function private.stored_resolutions to authenticated;
grant execute on function private.rollups_of to authenticated;
grant execute on function private.merged_rollup to authenticated;
grant execute on function private.merged_rollups to authenticated;
