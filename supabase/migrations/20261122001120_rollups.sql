-- Rollups: what each trader signalled per minute, hour and day, by symbol and timeframe.
-- Every signal is merged in once, by its seq: private.rollup_heads says how far an account has got.
-- Must never break: the stored rollups and the signals after the head together equal a recount.

create function private.resolutions()
returns text[]
language sql
immutable
set search_path = ''
as $$ select array['1m', '1h', '1d'] $$;

comment on function private.resolutions is
'How wide a bucket may be, finest first. Buckets begin at whole minutes, hours and days in UTC.';

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

create table private.rollups_1m partition of private.rollups
for values in ('1m') partition by range (bucket);
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
  constraint seq_is_positive check (seq > 0)
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

create function private.rollups_of(signals private.signals[])
returns setof private.rollups
language sql
immutable
set search_path = ''
as $$
  select
    coalesce(signal.minute, signal.hour, signal.day),
    min(signal.generated_at),
    max(signal.generated_at),
    sum(signal.confidence),
    regr_sxx(signal.confidence, signal.confidence),
    min(signal.confidence),
    max(signal.confidence),
    sum(signal.price),
    regr_sxx(signal.price, signal.price),
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
    case grouping(signal.hour, signal.minute) when 0 then '1m' when 1 then '1h' else '1d' end,
    signal.symbol
  from (
    select
      each.*,
      (private.actions())[each.action] as word,
      date_bin('1 minute', each.generated_at, timestamptz 'epoch') as minute,
      date_bin('1 hour', each.generated_at, timestamptz 'epoch') as hour,
      date_bin('1 day', each.generated_at, timestamptz 'epoch') as day
    from unnest(rollups_of.signals) as each
  ) as signal
  -- The three are prefixes of one order, so one sort serves them all.
  group by
    signal.account_no, signal.trader_no, signal.symbol, signal.timeframe,
    grouping sets (
      (signal.day, signal.hour, signal.minute), (signal.day, signal.hour), (signal.day))
$$;

comment on function private.rollups_of is 'The given signals, summed up at every resolution.';

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

create function private.rollup_step()
returns bigint
language plpgsql
set search_path = ''
-- The lock is held for one step; who waits longer than some of them should say so.
set lock_timeout = '5s'
as $$
declare
  v_ranges private.seq_range[];
  v_added private.rollups[];
begin
  -- Two at once would merge the same signals twice.
  perform pg_advisory_xact_lock(hashtext('private.rollup_step'));
  v_ranges := array(select range from private.next_to_roll_up(10000) as range);
  v_added := array(
    select added
    from private.rollups_of(private.signals_in(v_ranges)) as added
    inner join (
      select each.resolution, private.kept_since(each.resolution) as since
      from unnest(private.resolutions()) as each (resolution)
      offset 0
    ) as kept on kept.resolution = added.resolution
    where added.bucket >= kept.since
  );
  perform private.ensure_partitions(
    'private.rollups_' || added.resolution, min(added.bucket), max(added.bucket))
  from unnest(v_added) as added
  group by added.resolution
  -- Late signals have their partitions; what was imported may be older than these.
  having min(added.bucket) < private.clock() - interval '8 days';
  perform private.add_rollups(v_added);
  insert into private.rollup_heads as head (account_no, seq, rolled_up_at)
  select range.account_no, range.last_seq, private.clock()
  from unnest(v_ranges) as range
  on conflict (account_no) do update
  set seq = excluded.seq, rolled_up_at = excluded.rolled_up_at;
  return (
    select coalesce(sum(range.last_seq - range.first_seq + 1), 0)
    from unnest(v_ranges) as range);
end
$$;

comment on function private.rollup_step is
'Merges the next 10,000 signals at most into the rollups; returns how many, 0 when all are in.';

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
    from unnest(private.resolutions()) as each (resolution)
  ),
  recounted as (
    select
      signal.account_no,
      kept.resolution,
      date_trunc(
        case kept.resolution when '1m' then 'minute' when '1h' then 'hour' else 'day' end,
        signal.generated_at, 'UTC') as bucket,
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
      and abs(stored.price_sum - recounted.price_sum) <= 1e-12 * recounted.price_magnitude
      and abs(stored.price_squares - recounted.price_squares)
        <= 1e-9 * recounted.price_squares
          + 1e-14 * recounted.price_magnitude ^ 2 / recounted.signals
    ) is not true;
end
$$;

comment on function private.rollup_differences is
'Where stored rollups differ from a recount of the same signals: no row when all is well. It reads
everything that is stored of one account, or of all: for tests and for operators who doubt.';

create function private.encode_rollup_cursor(
  resolution text,
  rollup json
)
returns text
language sql
stable
set search_path = ''
as $$
  select private.to_base64url(
    encode_rollup_cursor.resolution || ' '
    || (extract(epoch from (rollup ->> 'bucket')::timestamptz) * 1000000)::bigint || ' '
    || (rollup ->> 'trader_id') || ' ' || (rollup ->> 'symbol') || ' ' || (rollup ->> 'timeframe'))
$$;

comment on function private.encode_rollup_cursor is
'The opaque cursor after a rollup: base64url of the resolution and of what identifies it.';

create function private.decode_rollup_cursor(
  cursor text,
  resolution text,
  out bucket timestamptz,
  out trader_no integer,
  out symbol text,
  out timeframe smallint
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_parts text[];
begin
  if decode_rollup_cursor.cursor is null then
    bucket := 'infinity';
    trader_no := 0;
    symbol := '';
    timeframe := 0;
    return;
  end if;
  v_parts := regexp_match(
    private.from_base64url(decode_rollup_cursor.cursor),
    '^(1m|1h|1d) ([0-9]{1,16}) ([0-9a-f-]{36}) ([^ ]{1,32}) ([^ ]{1,3})$');
  bucket := timestamptz 'epoch' + v_parts[2]::bigint * interval '1 microsecond';
  select trader.trader_no into trader_no
  from private.traders as trader
  where trader.trader_id::text = v_parts[3];
  symbol := v_parts[4];
  timeframe := array_position(private.timeframes(), v_parts[5]);
  if trader_no is null or timeframe is null or v_parts[1] <> decode_rollup_cursor.resolution then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the resolution while paging.');
  end if;
end
$$;

comment on function private.decode_rollup_cursor is
'After which rollup a page starts; PT400 for a cursor that is changed or of another resolution.';

create function private.require_resolution(resolution text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if (require_resolution.resolution = any(private.resolutions())) is not true then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot sum up: resolution must be 1m, 1h or 1d.',
      'Use 1m, 1h or 1d.');
  end if;
end
$$;

comment on function private.require_resolution is
'PT400 unless there are rollups of this resolution.';

create function private.shown_rollup(
  rollup private.rollups,
  trader_id uuid
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_signals integer :=
    rollup.enter_long + rollup.exit_long + rollup.enter_short + rollup.exit_short;
begin
  return json_build_object(
    'bucket', rollup.bucket,
    'trader_id', trader_id,
    'symbol', rollup.symbol,
    'timeframe', (private.timeframes())[rollup.timeframe],
    'signals', v_signals,
    'enter_long', rollup.enter_long,
    'exit_long', rollup.exit_long,
    'enter_short', rollup.enter_short,
    'exit_short', rollup.exit_short,
    'first_generated_at', rollup.first_generated_at,
    'last_generated_at', rollup.last_generated_at,
    'confidence_min', rollup.confidence_min,
    'confidence_max', rollup.confidence_max,
    'confidence_avg', rollup.confidence_sum / v_signals,
    'confidence_stddev', sqrt(rollup.confidence_squares / nullif(v_signals - 1, 0)),
    'price_first', rollup.price_first,
    'price_last', rollup.price_last,
    'price_min', rollup.price_min,
    'price_max', rollup.price_max,
    'price_avg', rollup.price_sum / v_signals,
    'price_stddev', sqrt(rollup.price_squares / nullif(v_signals - 1, 0)));
end
$$;

comment on function private.shown_rollup is
'A rollup as clients see it. stddev is that of a sample: null for one signal.';

create function private.live_rollups(account private.accounts)
returns private.rollups[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_seq bigint := coalesce((
    select head.seq from private.rollup_heads as head
    where head.account_no = account.account_no), 0);
begin
  return array(
    select live
    from private.rollups_of(array(
      select signal
      from private.signals_by_seq(account.account_no, v_seq + 1, account.last_seq) as signal
      where account.last_seq > v_seq
    )) as live
  );
end
$$;

comment on function private.live_rollups is
'What of the account is not in the stored rollups yet, summed up. The account''s row must be of the
snapshot of the statement that asks, as it is within a stable function.';

create function private.query_rollups(
  traders uuid[],
  symbols text[],
  timeframes text[],
  resolution text,
  from_time timestamptz,
  to_time timestamptz,
  cursor text,
  page_size integer
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
-- Planned at each call: the times given leave out partitions.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_page_size integer := coalesce(query_rollups.page_size, 100);
  v_account private.accounts;
  v_since timestamptz;
  v_start record;
  v_trader_nos integer[] := array(
    select trader.trader_no from private.traders as trader
    where trader.trader_id = any(query_rollups.traders));
  v_timeframes integer[] := array(
    select array_position(private.timeframes(), word)
    from unnest(query_rollups.timeframes) as each (word));
  v_live private.rollups[];
  v_rows json[];
begin
  perform private.require_query(
    greatest(
      cardinality(query_rollups.traders), cardinality(query_rollups.symbols),
      cardinality(query_rollups.timeframes)),
    'newest', v_page_size);
  perform private.require_resolution(query_rollups.resolution);
  select cursor_start.* into v_start
  from private.decode_rollup_cursor(query_rollups.cursor, query_rollups.resolution) as cursor_start;
  select account.* into v_account
  from private.accounts as account
  where account.account_id = v_account_id;
  v_since := greatest(
    query_rollups.from_time,
    private.kept_since(query_rollups.resolution, v_account.tier));
  v_live := private.live_rollups(v_account);
  v_rows := array(
    select private.shown_rollup(
      case cardinality(page.parts)
        when 1 then page.parts[1] else private.merged_rollup(page.parts[1], page.parts[2]) end,
      trader.trader_id)
    from (
      select each.bucket, each.trader_no, each.symbol, each.timeframe, array_agg(each.part) as parts
      from (
        select rollup.bucket, rollup.trader_no, rollup.symbol, rollup.timeframe, rollup.part
        from (
          select stored.*, stored as part from private.rollups as stored
          union all
          select live.*, live as part from unnest(v_live) as live
        ) as rollup
        where rollup.account_no = v_account.account_no
          and rollup.resolution = query_rollups.resolution
          and rollup.bucket >= v_since
          and (query_rollups.to_time is null or rollup.bucket < query_rollups.to_time)
          and rollup.bucket <= v_start.bucket
          and (rollup.bucket, rollup.trader_no, rollup.symbol, rollup.timeframe)
            < (v_start.bucket, v_start.trader_no, v_start.symbol, v_start.timeframe)
          and (query_rollups.traders is null or rollup.trader_no = any(v_trader_nos))
          and (query_rollups.symbols is null or rollup.symbol = any(query_rollups.symbols))
          and (query_rollups.timeframes is null or rollup.timeframe = any(v_timeframes))
        order by
          rollup.bucket desc, rollup.trader_no desc, rollup.symbol desc, rollup.timeframe desc
        -- A rollup is in one or two parts: what is stored, and what is not rolled up yet.
        limit 2 * (v_page_size + 1)
      ) as each
      group by each.bucket, each.trader_no, each.symbol, each.timeframe
      order by each.bucket desc, each.trader_no desc, each.symbol desc, each.timeframe desc
      limit v_page_size + 1
    ) as page
    inner join private.traders as trader on trader.trader_no = page.trader_no
    order by page.bucket desc, page.trader_no desc, page.symbol desc, page.timeframe desc
  );
  return json_build_object(
    'rollups', array_to_json(v_rows[:v_page_size]),
    'next_cursor', case when cardinality(v_rows) > v_page_size then
      private.encode_rollup_cursor(query_rollups.resolution, v_rows[v_page_size]) end,
    'last_seq', coalesce(v_account.last_seq, 0));
end
$$;

comment on function private.query_rollups is 'Body of public.query_rollups.';

create function public.query_rollups(
  traders uuid[] default null,
  symbols text[] default null,
  timeframes text[] default null,
  resolution text default '1m',
  "from" timestamptz default null,
  "to" timestamptz default null,
  cursor text default null,
  page_size integer default 100
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.query_rollups(
    traders, symbols, timeframes, resolution, "from", "to", cursor, page_size)
$$;

comment on function public.query_rollups is
'A page of the caller''s rollups (resolution 1m, 1h or 1d), newest bucket first: those that begin at
or after from and before to, as far back as the account''s tier keeps them. The bucket that is not
over is included: a page always equals a recount of the account''s signals up to last_seq.';

alter table private.rollups enable row level security;
-- Row-level security is not inherited: whoever reached a partition would see no row there.
alter table private.rollups_1m enable row level security;
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

grant execute on function private.resolutions to authenticated;
grant execute on function private.rollups_of to authenticated;
grant execute on function private.merged_rollup to authenticated;
grant execute on function private.live_rollups to authenticated;
grant execute on function private.require_resolution to authenticated;
grant execute on function private.shown_rollup to authenticated;
grant execute on function private.encode_rollup_cursor to authenticated;
grant execute on function private.decode_rollup_cursor to authenticated;
grant execute on function private.query_rollups to authenticated;
grant execute on function public.query_rollups to authenticated;
