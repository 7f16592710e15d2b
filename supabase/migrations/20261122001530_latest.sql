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
        (stored.timeframe = any(query.timeframes)) is not false
        and (query.actions is null
          or 1 = any(query.actions) and stored.enter_long > 0
          or 2 = any(query.actions) and stored.exit_long > 0
          or 3 = any(query.actions) and stored.enter_short > 0
          or 4 = any(query.actions) and stored.exit_short > 0) as is_wanted
      from private.rollups as stored
      where stored.account_no = account.account_no
        and stored.resolution = '1d'
        and stored.bucket >= date_trunc('day', query.from_time, 'UTC')
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
      where each.last_generated_at >= query.from_time
        and (each.trader_no = any(query.trader_nos)) is not false
        and (each.symbol = any(query.symbols)) is not false
        and (each.symbol between query.first_symbol and query.last_symbol) is not false)
  into v_read, v_places;
  if v_read > v_most then
    perform private.raise_error(
      400, 'query_too_wide',
      'Cannot find the latest signals: too many traders and symbols have signalled on too many days.',
      'Give a later from.');
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
begin
  query.after_seq := private.rolled_up_seq(account);
  query.until_seq := account.last_seq;
  query := private.sorted_by(query, 'seq');
  query.row_limit := query.until_seq - query.after_seq;
  return array(
    select (
      signal.trader_no, signal.symbol, max(signal.generated_at),
      max(signal.generated_at) + interval '1 microsecond'
    )::private.last_place
    from unnest(private.found_signals(query, account)) as signal
    group by signal.trader_no, signal.symbol);
end
$$;

comment on function private.newer_places is
'Where the newest signal of each trader and symbol is, of those signals that are not in the rollups yet.';

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

create function private.signals_at_places(
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
  v_place private.last_place;
  v_signals private.signals[] := array[]::private.signals[];
begin
  query.row_limit := 1;
  query.until_seq := account.last_seq;
  query.first_symbol := null;
  query.last_symbol := null;
  foreach v_place in array signals_at_places.places loop
    query.trader_nos := array[v_place.trader_no];
    query.symbols := array[v_place.symbol];
    query.from_time := v_place.from_time;
    query.to_time := v_place.to_time;
    v_signals := v_signals || private.found_signals(query, account);
  end loop;
  return v_signals;
end
$$;

comment on function private.signals_at_places is
'The newest signal of the query at each of the places, in their order.';

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
    ' ', 'latest', hashtextextended(trader_id || symbol, query.digest), trader_id, symbol))
$$;

comment on function private.encode_latest_cursor is
'The opaque cursor after a symbol and trader: base64url of a hash of these and of the filters, and of
these.';

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
    private.from_base64url(decode_latest_cursor.cursor), '^latest \S+ ([0-9a-f-]{36}) (\S+)$');
  v_trader_no integer := (
    select trader.trader_no from private.traders as trader
    where trader.trader_id::text = v_parts[1]);
begin
  if decode_latest_cursor.cursor is null then
    return (0, '', null, null)::private.last_place;
  end if;
  if v_trader_no is null or decode_latest_cursor.cursor
    <> private.encode_latest_cursor(query, v_parts[2], v_parts[1]::uuid) then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the filters while paging.');
  end if;
  return (v_trader_no, v_parts[2], null, null)::private.last_place;
end
$$;

comment on function private.decode_latest_cursor is
'After which symbol and trader a page starts; PT400 for a cursor that is changed or of other filters.';

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
  v_cursor text;
begin
  perform private.require_page_size(v_page_size);
  perform private.require_latest(query.from_time, v_kept_since);
  query.from_time := greatest(query.from_time, v_kept_since);
  v_account.last_seq := least(
    coalesce(v_account.last_seq, 0),
    private.rolled_up_seq(v_account) + private.most_signals_counted(true));
  -- One place more than the page was asked for: it tells that there is a next page.
  v_places := private.next_places(
    private.last_places(query, v_account) || private.newer_places(query, v_account),
    v_start, v_page_size + 1);
  if cardinality(v_places) > v_page_size then
    v_places := v_places[:v_page_size];
    v_cursor := private.encode_latest_cursor(query, v_places[v_page_size].symbol, (
      select trader.trader_id from private.traders as trader
      where trader.trader_no = v_places[v_page_size].trader_no));
  end if;
  return json_build_object(
    'signals', private.signals_json(
      private.signals_at_places(query, v_account, v_places), null, v_account.last_event_seq > 0),
    'next_cursor', v_cursor,
    'last_seq', v_account.last_seq);
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
trader first: of what was generated at or after from, which may be as long ago as daily rollups are kept,
and is so by default. With actions or timeframes the newest that has one of these. Each trader and symbol
comes once, also when signals arrive between two pages. last_seq tells up to which seq the page is
complete: the account''s, unless more than 100,000 signals wait for the rollup job.';

grant execute on function private.require_latest to authenticated;
grant execute on function private.last_places to authenticated;
grant execute on function private.newer_places to authenticated;
grant execute on function private.next_places to authenticated;
grant execute on function private.signals_at_places to authenticated;
grant execute on function private.encode_latest_cursor to authenticated;
grant execute on function private.decode_latest_cursor to authenticated;
grant execute on function private.latest_signals to authenticated;
grant execute on function public.latest_signals to authenticated;
