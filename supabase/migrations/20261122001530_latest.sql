-- latest_signals: the newest signal of each trader and symbol, for a screen that shows where all stand.
-- The daily rollups tell when each pair last signalled, so what came before is not read.
-- Must never break: pages joined hold each pair once, whatever is stored meanwhile; and each signal is
-- the newest of its pair up to the last_seq that its page tells.

create type private.last_place as (
  trader_no integer,
  symbol text collate "C",
  from_time timestamptz,
  to_time timestamptz
);

comment on type private.last_place is
'A trader and symbol, and when their newest signal is: from from_time (inclusive) to to_time (exclusive).';

create function private.require_latest(
  from_time timestamptz,
  since timestamptz
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if require_latest.from_time < require_latest.since
    and require_latest.from_time > '-infinity' then
    perform private.raise_error(
      400, 'query_too_wide',
      'Cannot find the latest signals so far back: daily rollups are not kept for as long.',
      'Leave from out to look as far back as they are, or ask query_signals.');
  end if;
end
$$;

comment on function private.require_latest is
'PT400 when the latest signals are asked for from a time before the daily rollups.';

create function private.latest_since(
  query private.signal_query,
  account private.accounts,
  kept_since timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = ''
-- Planned at each call: the times given leave out partitions.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  -- Half of what is read for a page, since more may be there when the next page is asked for.
  v_most integer := private.most_rollups_counted() / 2;
  v_too_many timestamptz := (
    select stored.bucket
    from private.rollups as stored
    where stored.account_no = account.account_no
      and stored.resolution = '1d'
      and stored.bucket >= latest_since.kept_since
      and (query.trader_nos is null or stored.trader_no = any(query.trader_nos))
      and (query.symbols is null or stored.symbol = any(query.symbols))
      and (query.first_symbol is null
        or stored.symbol between query.first_symbol and query.last_symbol)
      and (query.timeframes is null or stored.timeframe = any(query.timeframes))
    order by stored.bucket desc
    offset v_most
    limit 1);
begin
  return coalesce(v_too_many + private.bucket_width('1d'), latest_since.kept_since);
end
$$;

comment on function private.latest_since is
'Since when the latest signals are looked for by default: since daily rollups are kept, or since the first
whole day from which on they are few enough to be read.';

create function private.last_places(
  query private.signal_query,
  account private.accounts
)
returns private.last_place[]
language plpgsql
stable
set search_path = ''
-- Planned at each call: the times given leave out partitions.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_most integer := private.most_rollups_counted();
  v_read bigint;
  v_places private.last_place[];
begin
  with pair as materialized (
    select
      rollup.trader_no, rollup.symbol, count(*) as rollups,
      max(rollup.first_generated_at) filter (where rollup.is_wanted) as first_generated_at,
      max(rollup.last_generated_at) filter (where rollup.is_wanted) as last_generated_at
    from (
      select
        stored.*,
        query.actions is null
        or 1 = any(query.actions) and stored.enter_long > 0
        or 2 = any(query.actions) and stored.exit_long > 0
        or 3 = any(query.actions) and stored.enter_short > 0
        or 4 = any(query.actions) and stored.exit_short > 0 as is_wanted
      from private.rollups as stored
      where stored.account_no = account.account_no
        and stored.resolution = '1d'
        and stored.bucket >= date_trunc('day', query.from_time, 'UTC')
        -- With the values given when planned, these are conditions of the primary key's index, or none.
        and (query.trader_nos is null or stored.trader_no = any(query.trader_nos))
        and (query.symbols is null or stored.symbol = any(query.symbols))
        and (query.first_symbol is null
          or stored.symbol between query.first_symbol and query.last_symbol)
        and (query.timeframes is null or stored.timeframe = any(query.timeframes))
      limit v_most + 1
    ) as rollup
    group by rollup.trader_no, rollup.symbol
  )
  select
    (select sum(each.rollups) from pair as each),
    array(
      select (
        each.trader_no, each.symbol,
        -- Of an action the day is known, and that its last signal is not before the first of all.
        greatest(
          case when query.actions is null then each.last_generated_at
            else each.first_generated_at end,
          query.from_time),
        each.last_generated_at + interval '1 microsecond'
      )::private.last_place
      from pair as each
      where each.last_generated_at >= query.from_time)
  into v_read, v_places;
  if v_read > v_most then
    perform private.raise_error(
      400, 'query_too_wide',
      'Cannot find the latest signals: too many traders and symbols have signalled on too many days.',
      'Give a later from, or some traders or symbols.');
  end if;
  return v_places;
end
$$;

comment on function private.last_places is
'Where the newest signal of each trader and symbol is, as the daily rollups know; PT400 when they are too
many.';

create function private.newer_places(
  query private.signal_query,
  account private.accounts
)
returns private.last_place[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_found private.signals[];
  v_places private.last_place[] := array[]::private.last_place[];
begin
  query.after_seq := private.rolled_up_seq(account);
  query.until_seq := account.last_seq;
  query := private.sorted_by(query, 'seq');
  query.row_limit := private.counted_at_once();
  loop
    v_found := private.found_signals(query, account);
    v_places := v_places || array(
      select (
        signal.trader_no, signal.symbol, max(signal.generated_at),
        max(signal.generated_at) + interval '1 microsecond'
      )::private.last_place
      from unnest(v_found) as signal
      group by signal.trader_no, signal.symbol);
    exit when cardinality(v_found) < query.row_limit;
    query := private.behind_signal(query, v_found[query.row_limit]);
  end loop;
  return v_places;
end
$$;

comment on function private.newer_places is
'Where the newest signal of each trader and symbol is, of those signals that are not in the rollups yet. A
pair may come several times.';

create function private.next_places(
  places private.last_place[],
  start private.last_place,
  row_limit integer
)
returns private.last_place[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return array(
    select (place.trader_no, place.symbol, max(place.from_time), max(place.to_time))
      ::private.last_place
    from unnest(next_places.places) as place
    where (place.symbol, place.trader_no) > (start.symbol, start.trader_no)
    group by place.symbol, place.trader_no
    order by place.symbol, place.trader_no
    limit next_places.row_limit);
end
$$;

comment on function private.next_places is
'The first places after start, by symbol and trader. A pair with several places is once there: its newest
signal is not before any of them begins, nor after all of them end.';

create function private.found_together(
  query private.signal_query,
  account private.accounts,
  places private.last_place[]
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_most constant integer := 20000;
  v_missing private.last_place[] := places;
  v_found private.signals[];
  v_newest private.signals[] := array[]::private.signals[];
begin
  query.row_limit := private.counted_at_once();
  for v_round in 1..v_most / query.row_limit loop
    exit when cardinality(v_missing) = 0;
    select
      array_agg(distinct place.trader_no), array_agg(distinct place.symbol),
      min(place.from_time), max(place.to_time)
    into query.trader_nos, query.symbols, query.from_time, query.to_time
    from unnest(v_missing) as place;
    v_found := private.found_signals(query, account);
    v_newest := v_newest || array(
      select distinct on (signal.symbol, signal.trader_no) signal
      from unnest(v_found) as signal
      inner join unnest(v_missing) as place
        on place.symbol = signal.symbol and place.trader_no = signal.trader_no
      order by signal.symbol, signal.trader_no, signal.generated_at desc, signal.seq desc);
    v_missing := array(
      select place
      from unnest(v_missing) as place
      left join unnest(v_newest) as signal
        on signal.symbol = place.symbol and signal.trader_no = place.trader_no
      where signal.seq is null);
    exit when cardinality(v_found) < query.row_limit;
    query := private.behind_signal(query, v_found[query.row_limit]);
  end loop;
  return v_newest;
end
$$;

comment on function private.found_together is
'The newest signal of the query of each trader and symbol of the places that is among the 20,000 newest of
them all; of those that are found no more is read.';

create function private.signals_at_places(
  query private.signal_query,
  account private.accounts,
  places private.last_place[],
  out signals private.signals[],
  out searched private.last_place[]
)
language plpgsql
stable
set search_path = ''
as $$
declare
  -- Of an action, all of a day may have to be passed over for each.
  v_most constant integer := case when query.actions is not null then 20 end;
  v_alone integer := 0;
  v_place record;
  v_found private.signals[];
begin
  query.until_seq := account.last_seq;
  query.first_symbol := null;
  query.last_symbol := null;
  signals := case when query.actions is null then '{}'
    else private.found_together(query, account, places) end;
  searched := places;
  query.row_limit := 1;
  for v_place in
    select place.*
    from unnest(places) with ordinality as place
    left join unnest(signals) as signal
      on signal.symbol = place.symbol and signal.trader_no = place.trader_no
    where signal.seq is null
    order by place.ordinality
  loop
    if v_alone >= v_most then
      searched := places[:v_place.ordinality - 1];
      exit;
    end if;
    query.trader_nos := array[v_place.trader_no];
    query.symbols := array[v_place.symbol];
    query.from_time := v_place.from_time;
    query.to_time := v_place.to_time;
    v_found := private.found_signals(query, account);
    if cardinality(v_found) > 0 then
      signals := array_append(signals, v_found[1]);
    end if;
    v_alone := v_alone + 1;
  end loop;
  signals := array(
    select signal
    from unnest(signals) as signal
    inner join unnest(searched) as place
      on place.symbol = signal.symbol and place.trader_no = signal.trader_no
    order by signal.symbol, signal.trader_no);
end
$$;

comment on function private.signals_at_places is
'The newest signal of the query at each of the places, in their order, and the places that were searched:
the first of them, if too many had to be searched one by one.';

create function private.encode_latest_cursor(
  query private.signal_query,
  symbol text,
  trader_id uuid
)
returns text
language sql
immutable
set search_path = ''
as $$
  select private.to_base64url(concat_ws(
    ' ', 'latest', hashtextextended(concat(seen.since, trader_id, symbol), query.digest), seen.since,
    trader_id, symbol))
  from (select (extract(epoch from query.from_time) * 1000000)::bigint as since) as seen
$$;

comment on function private.encode_latest_cursor is
'The opaque cursor after a symbol and trader: base64url of a hash of these, of the filters and of since
when is looked for, and of these.';

create function private.decode_latest_cursor(
  query private.signal_query,
  cursor text
)
returns private.last_place
language plpgsql
stable
set search_path = ''
as $$
declare
  v_parts text[] := regexp_match(
    private.from_base64url(decode_latest_cursor.cursor),
    '^latest \S+ (\d{1,17}) ([0-9a-f-]{36}) (\S+)$');
  v_trader_no integer := (
    select trader.trader_no from private.traders as trader
    where trader.trader_id::text = v_parts[2]);
begin
  if decode_latest_cursor.cursor is null then
    return (0, '', null, null)::private.last_place;
  end if;
  query.from_time := timestamptz 'epoch' + v_parts[1]::bigint * interval '1 microsecond';
  if v_trader_no is null or decode_latest_cursor.cursor
    <> private.encode_latest_cursor(query, v_parts[3], v_parts[2]::uuid) then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the filters while paging.');
  end if;
  return (v_trader_no, v_parts[3], query.from_time, null)::private.last_place;
end
$$;

comment on function private.decode_latest_cursor is
'After which symbol and trader a page starts, and since when it looks; PT400 for a cursor that is changed
or of other filters.';

create function private.latest_signals(
  query private.signal_query,
  cursor text,
  page_size integer
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_page_size integer := coalesce(latest_signals.page_size, 100);
  v_account private.accounts := private.caller_account();
  v_start private.last_place := private.decode_latest_cursor(query, latest_signals.cursor);
  v_kept_since timestamptz := private.whole_since(
    greatest(
      private.kept_since('1d', v_account.tier), private.kept_since('signals', v_account.tier)),
    'day');
  v_places private.last_place[];
  v_page record;
  v_cursor text;
begin
  perform private.require_page_size(v_page_size);
  perform private.require_latest(query.from_time, v_kept_since);
  -- The pages that follow look as far back as the first.
  query.from_time := case
    when v_start.from_time is not null then greatest(v_start.from_time, v_kept_since)
    when query.from_time = '-infinity' then private.latest_since(query, v_account, v_kept_since)
    else query.from_time
  end;
  v_account.last_seq := least(
    coalesce(v_account.last_seq, 0),
    private.rolled_up_seq(v_account) + private.most_signals_counted(true));
  -- One place more than the page was asked for: it tells that there is a next page.
  v_places := private.next_places(
    private.last_places(query, v_account) || private.newer_places(query, v_account),
    v_start, v_page_size + 1);
  v_page := private.signals_at_places(query, v_account, v_places[:v_page_size]);
  if cardinality(v_page.searched) < cardinality(v_places) then
    v_start := v_page.searched[cardinality(v_page.searched)];
    v_cursor := private.encode_latest_cursor(query, v_start.symbol, (
      select trader.trader_id from private.traders as trader
      where trader.trader_no = v_start.trader_no));
  end if;
  return json_build_object(
    'signals', private.signals_json(v_page.signals, null, v_account.last_event_seq > 0),
    'next_cursor', v_cursor,
    'last_seq', v_account.last_seq,
    'since', query.from_time);
end
$$;

comment on function private.latest_signals is
'Body of public.latest_signals. private.read_filter has asked for the scope; the policies ask again.';

create function public.latest_signals(
  traders uuid[] default null,
  symbols text[] default null,
  symbol_prefix text default null,
  timeframes text[] default null,
  actions text[] default null,
  "from" timestamptz default null,
  page_size integer default 100,
  cursor text default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.latest_signals(
    private.read_filter(
      traders => traders, symbols => symbols, symbol_prefix => symbol_prefix,
      timeframes => timeframes, actions => actions, from_time => "from"),
    cursor, page_size)
$$;

comment on function public.latest_signals is
'The newest of the caller''s signals of each trader and symbol, by symbol and then by trader, oldest
trader first: of what was generated at or after from, which may be as long ago as daily rollups are kept.
By default it is as long ago as that or, where they are very many, as few enough can be read; since tells.
With actions or timeframes the newest that has one of these; with actions a page may be short, or empty,
and still have a next_cursor. Each trader and symbol comes once, also when signals arrive between two
pages. last_seq tells up to which seq the page is complete: the account''s, unless more than 100,000
signals wait for the rollup job.';

grant execute on function private.require_latest to authenticated;
grant execute on function private.latest_since to authenticated;
grant execute on function private.last_places to authenticated;
grant execute on function private.newer_places to authenticated;
grant execute on function private.next_places to authenticated;
grant execute on function private.found_together to authenticated;
grant execute on function private.signals_at_places to authenticated;
grant execute on function private.encode_latest_cursor to authenticated;
grant execute on function private.decode_latest_cursor to authenticated;
grant execute on function private.latest_signals to authenticated;
grant execute on function public.latest_signals to authenticated;
