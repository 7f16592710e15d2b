-- query_rollups: pages of rollups, newest first: hours and days as stored, with what is newer.
-- Minutes are summed up from the signals, hot or packed, which are read until a page is full.
-- Must never break: pages joined are the list, and equal a recount up to last_seq; what one page reads
-- is bounded, however many signals there are.

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
  resolution text
)
returns private.rollups
language plpgsql
stable
set search_path = ''
as $$
declare
  v_parts text[];
  v_start private.rollups;
begin
  v_start.resolution := decode_rollup_cursor.resolution;
  if decode_rollup_cursor.cursor is null then
    v_start.bucket := 'infinity';
    v_start.trader_no := 0;
    v_start.symbol := '';
    v_start.timeframe := 0;
    return v_start;
  end if;
  v_parts := regexp_match(
    private.from_base64url(decode_rollup_cursor.cursor),
    '^(1m|1h|1d) ([0-9]{1,16}) ([0-9a-f-]{36}) ([^ ]{1,32}) ([^ ]{1,3})$');
  v_start.bucket := timestamptz 'epoch' + v_parts[2]::bigint * interval '1 microsecond';
  select trader.trader_no into v_start.trader_no
  from private.traders as trader
  where trader.trader_id::text = v_parts[3];
  v_start.symbol := v_parts[4];
  v_start.timeframe := array_position(private.timeframes(), v_parts[5]);
  if v_start.trader_no is null or v_start.timeframe is null
    or v_parts[1] <> v_start.resolution then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the resolution while paging.');
  end if;
  return v_start;
end
$$;

comment on function private.decode_rollup_cursor is
'After which rollup a page starts, in the columns that identify one; PT400 for a cursor that is
changed or of another resolution.';

create function private.require_resolution(resolution text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if private.bucket_width(require_resolution.resolution) is null then
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

create function private.countable_seq(account private.accounts)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_most constant integer := 10000;
  v_seq bigint := coalesce((
    select head.seq from private.rollup_heads as head
    where head.account_no = account.account_no), 0);
begin
  return case
    when account.last_seq > v_seq + v_most then v_seq + v_most else account.last_seq end;
end
$$;

comment on function private.countable_seq is
'Up to which seq a page of hours or days counts. That is last_seq, unless more than 10,000 signals wait
for the job, a step of it: to sum up all of them for each page would take as long as the job takes.';

create function private.live_rollups(
  account private.accounts,
  resolution text
)
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
    from private.rollups_of(
      array(
        select signal
        from private.signals_by_seq(account.account_no, v_seq + 1, account.last_seq) as signal
        where account.last_seq > v_seq
      ),
      live_rollups.resolution
    ) as live
  );
end
$$;

comment on function private.live_rollups is
'What of the account up to its last_seq is not in the stored rollups yet, summed up. The account''s row
must be of the snapshot of the statement that asks, as it is within a stable function.';

create function private.stored_rollups(
  query private.signal_query,
  start private.rollups,
  account private.accounts
)
returns private.rollups[]
language plpgsql
stable
set search_path = ''
-- Planned at each call: the times given leave out partitions.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_since timestamptz := greatest(
    query.from_time, private.kept_since(start.resolution, account.tier));
  v_live private.rollups[] := private.live_rollups(account, start.resolution);
begin
  return private.merged_rollups(
    array(
      select rollup.part
      from (
        select stored.*, stored as part from private.rollups as stored
        union all
        select live.*, live as part from unnest(v_live) as live
      ) as rollup
      where rollup.account_no = account.account_no
        and rollup.resolution = start.resolution
        and rollup.bucket >= v_since
        and rollup.bucket < query.to_time
        and rollup.bucket <= start.bucket
        and (rollup.bucket, rollup.trader_no, rollup.symbol, rollup.timeframe)
          < (start.bucket, start.trader_no, start.symbol, start.timeframe)
        and (query.trader_nos is null or rollup.trader_no = any(query.trader_nos))
        and (query.symbols is null or rollup.symbol = any(query.symbols))
        and (query.timeframes is null or rollup.timeframe = any(query.timeframes))
      order by
        rollup.bucket desc, rollup.trader_no desc, rollup.symbol desc, rollup.timeframe desc
      -- A rollup is in one or two parts: what is stored, and what is not rolled up yet.
      limit 2 * query.row_limit),
    query.row_limit);
end
$$;

comment on function private.stored_rollups is
'The first rollups of the query after start, newest first: the stored ones with what is newer merged
in.';

create function private.next_minute(at timestamptz)
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select date_trunc(
    'minute', next_minute.at + interval '1 minute' - interval '1 microsecond', 'UTC')
$$;

comment on function private.next_minute is 'The first whole minute that is not before a time.';

create function private.require_countable_minute(
  minute timestamptz,
  signals integer
)
returns void
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
begin
  if signals >= 100000 then
    perform private.raise_error(
      400, 'invalid_filter',
      'Cannot sum up the minute ' || to_char(minute, 'YYYY-MM-DD"T"HH24:MI"Z"')
        || ': more than 100,000 signals are in it.',
      'Ask for some traders or symbols only, for 1h, or with to for what comes before.');
  end if;
end
$$;

comment on function private.require_countable_minute is
'PT400 when so many signals of one minute have been read that a page would take too long.';

create function private.minute_rollups(
  query private.signal_query,
  start private.rollups,
  packed_until timestamptz,
  out rollups private.rollups[],
  out is_cut boolean
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query := query;
  v_signals private.signals[];
  v_minute timestamptz;
  v_read integer := 0;
  v_read_before integer;
begin
  v_query.from_time := private.next_minute(query.from_time);
  v_query.to_time := least(
    private.next_minute(query.to_time), private.next_minute(start.bucket + interval '1 minute'));
  v_query.row_limit := least(3 * query.row_limit, 4000);
  is_cut := false;
  loop
    v_signals := private.newest_signals(v_query, minute_rollups.packed_until);
    rollups := private.merged_rollups(
      rollups || array(
        select part
        from private.rollups_of(v_signals, '1m') as part
        where (part.bucket, part.trader_no, part.symbol, part.timeframe)
          < (start.bucket, start.trader_no, start.symbol, start.timeframe)),
      query.row_limit);
    exit when cardinality(v_signals) < v_query.row_limit;
    v_query.start_time := v_signals[v_query.row_limit].generated_at;
    v_query.start_seq := v_signals[v_query.row_limit].seq;
    v_read := v_read + v_query.row_limit;
    if date_trunc('minute', v_query.start_time, 'UTC') is distinct from v_minute then
      v_minute := date_trunc('minute', v_query.start_time, 'UTC');
      v_read_before := v_read;
    end if;
    -- What is still unread is of this minute or before.
    exit when rollups[query.row_limit].bucket > v_minute;
    perform private.require_countable_minute(v_minute, v_read - v_read_before);
    if v_read >= 20000 and rollups[1].bucket > v_minute then
      rollups := array(
        select rollup from unnest(rollups) as rollup where rollup.bucket > v_minute);
      is_cut := true;
      exit;
    end if;
    -- What is missing is mostly a part of a minute.
    v_query.row_limit := least(v_read / 2, 4000);
  end loop;
end
$$;

comment on function private.minute_rollups is
'The first minutes of the query after start, newest first, summed up from signals, which are read
newest first until no other can belong to the page. It is cut at a whole minute after 20,000 signals;
one minute of more than 100,000 is refused.';

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
as $$
declare
  -- It asks for the scope, first of all.
  v_query private.signal_query := private.read_page(
    private.read_filter(
      traders => query_rollups.traders, symbols => query_rollups.symbols,
      timeframes => query_rollups.timeframes, from_time => query_rollups.from_time,
      to_time => query_rollups.to_time),
    'newest', null, query_rollups.page_size);
  v_page_size integer := v_query.row_limit - 1;
  v_account private.accounts;
  v_start private.rollups;
  v_rollups private.rollups[];
  v_is_cut boolean := false;
  v_rows json[];
begin
  perform private.require_resolution(query_rollups.resolution);
  v_start := private.decode_rollup_cursor(query_rollups.cursor, query_rollups.resolution);
  select account.* into v_account
  from private.accounts as account
  where account.account_id = auth.uid();
  if query_rollups.resolution = any(private.stored_resolutions()) then
    v_account.last_seq := private.countable_seq(v_account);
    v_rollups := private.stored_rollups(v_query, v_start, v_account);
  else
    select page.rollups, page.is_cut into v_rollups, v_is_cut
    from private.minute_rollups(v_query, v_start, v_account.packed_until) as page;
  end if;
  v_rows := array(
    select private.shown_rollup(rollup, trader.trader_id)
    from unnest(v_rollups[:v_page_size]) as rollup
    inner join private.traders as trader on trader.trader_no = rollup.trader_no
    order by rollup.bucket desc, rollup.trader_no desc, rollup.symbol desc, rollup.timeframe desc
  );
  return json_build_object(
    'rollups', array_to_json(v_rows),
    'next_cursor', case when v_is_cut or cardinality(v_rollups) > v_page_size then
      private.encode_rollup_cursor(query_rollups.resolution, v_rows[cardinality(v_rows)]) end,
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
or after from and before to, as far back as the account''s tier keeps them (1m: as its signals). The
bucket that is not over is included: a page always equals a recount of the account''s signals up to the
last_seq that it tells. That is the account''s own, but for 1h and 1d while more than 10,000 signals wait
for the job. A page of 1m is shorter than page_size where its minutes hold very many signals: only a
next_cursor of null tells that there is no other. A minute of more than 100,000 signals is refused.';

grant execute on function private.countable_seq to authenticated;
grant execute on function private.live_rollups to authenticated;
grant execute on function private.stored_rollups to authenticated;
grant execute on function private.next_minute to authenticated;
grant execute on function private.require_countable_minute to authenticated;
grant execute on function private.minute_rollups to authenticated;
grant execute on function private.require_resolution to authenticated;
grant execute on function private.shown_rollup to authenticated;
grant execute on function private.encode_rollup_cursor to authenticated;
grant execute on function private.decode_rollup_cursor to authenticated;
grant execute on function private.query_rollups to authenticated;
grant execute on function public.query_rollups to authenticated;
