-- query_signals: pages of the caller's signals, newest first or by seq, wherever they are stored.
-- Row-level security decides whose signals; a page is found by index in the heap and in the segments.
-- Must never break: pages joined are the list, with nothing twice and nothing left out. What is skipped
-- goes by what packing keeps: nothing packed is later than packed_until, the columns of a segment tell of
-- all its signals, and its positions are in the order of time.

create type private.signal_query as (
  newest boolean,
  trader_nos integer [],
  symbols text [],
  timeframes smallint [],
  actions smallint [],
  min_confidence double precision,
  from_time timestamptz,
  to_time timestamptz,
  before_time timestamptz,
  before_seq bigint,
  after_seq bigint,
  until_seq bigint,
  row_limit integer
);

comment on type private.signal_query is
'Which signals to find: newest first, or by seq. The four lists and min_confidence are null when they
do not filter, and "(x = any(list)) is not false" is how they are asked; the other limits are never
null: from_time, before_time, until_seq are inclusive, to_time, after_seq exclusive, and a signal at
before_time must have a lower seq than before_seq.';

create function private.to_base64url(words text)
returns text
language sql
immutable
set search_path = ''
as $$
  select rtrim(
    translate(encode(convert_to(to_base64url.words, 'UTF8'), 'base64'), e'+/\n', '-_'), '=')
$$;

comment on function private.to_base64url is 'What a cursor says, in letters that a URL can carry.';

create function private.from_base64url(cursor text)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return convert_from(decode(rpad(
    translate(from_base64url.cursor, '-_', '+/'),
    (length(from_base64url.cursor) + 3) / 4 * 4, '='), 'base64'), 'UTF8');
exception
  when data_exception then return null;
end
$$;

comment on function private.from_base64url is 'What a cursor says; null when it is no base64url.';

create function private.encode_cursor(
  sort text,
  generated_at timestamptz,
  seq bigint
)
returns text
language sql
immutable
set search_path = ''
as $$
  select private.to_base64url(
    encode_cursor.sort || ' ' || (extract(epoch from encode_cursor.generated_at) * 1000000)::bigint
    || ' ' || encode_cursor.seq)
$$;

comment on function private.encode_cursor is
'The opaque cursor after a signal: base64url of the order, generated_at in microseconds and seq.';

create function private.decode_cursor(
  cursor text,
  sort text,
  out generated_at timestamptz,
  out seq bigint
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_parts text[];
begin
  if decode_cursor.cursor is null then
    generated_at := 'infinity';
    seq := case decode_cursor.sort when 'seq' then 0 else 9223372036854775807 end;
    return;
  end if;
  v_parts := regexp_match(
    private.from_base64url(decode_cursor.cursor),
    '^(newest|seq) ([0-9]{1,16}) ([0-9]{1,18})$');
  if v_parts is null or v_parts[1] <> decode_cursor.sort then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the sort while paging.');
  end if;
  generated_at := timestamptz 'epoch' + v_parts[2]::bigint * interval '1 microsecond';
  seq := v_parts[3]::bigint;
end
$$;

comment on function private.decode_cursor is
'Where a page starts; PT400 for a cursor that was changed or belongs to another order.';

create function private.require_query(
  filter_values integer,
  sort text,
  page_size integer
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if require_query.sort not in ('newest', 'seq') then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot sort: sort must be newest or seq.', 'Use newest or seq.');
  end if;
  if require_query.page_size not between 1 and 1000 then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot make the page: page_size must be from 1 to 1000.',
      'Ask for at most 1000 signals and follow next_cursor.');
  end if;
  if require_query.filter_values > 100 then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot filter: a filter has more than 100 values.',
      'Use at most 100 values in each filter.');
  end if;
end
$$;

comment on function private.require_query is
'PT400 unless the order, the page size and the number of filter values are allowed.';

create function private.positions_of(
  wanted anycompatiblearray,
  known anycompatiblearray
)
returns integer[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  if wanted is null then
    return null;
  end if;
  return array(
    select each.place
    from unnest(positions_of.known) with ordinality as each (value, place)
    where each.value = any(positions_of.wanted));
end
$$;

comment on function private.positions_of is
'Where the wanted values are in a list of known ones, from 1; null when nothing in particular is wanted.';

create function private.read_query(
  traders uuid[],
  symbols text[],
  timeframes text[],
  actions text[],
  min_confidence double precision,
  from_time timestamptz,
  to_time timestamptz,
  after_seq bigint,
  sort text,
  cursor text,
  page_size integer
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
declare
  v_page_size integer := coalesce(read_query.page_size, 100);
  v_sort text := coalesce(
    read_query.sort, case when read_query.after_seq is null then 'newest' else 'seq' end);
  v_start record;
  v_query private.signal_query;
begin
  -- Before the arguments are looked at: who may not ask learns nothing from what is wrong with them.
  perform private.caller_id('signals:read');
  perform private.require_query(
    greatest(
      cardinality(read_query.traders), cardinality(read_query.symbols),
      cardinality(read_query.timeframes), cardinality(read_query.actions)),
    v_sort, v_page_size);
  v_start := private.decode_cursor(read_query.cursor, v_sort);
  v_query.newest := v_sort = 'newest';
  if read_query.traders is not null then
    v_query.trader_nos := array(
      select trader.trader_no from private.traders as trader
      where trader.trader_id = any(read_query.traders));
  end if;
  if read_query.symbols is not null then
    v_query.symbols := array(
      select symbol from unnest(read_query.symbols) as symbol where symbol is not null);
  end if;
  v_query.timeframes := private.positions_of(read_query.timeframes, private.timeframes());
  v_query.actions := private.positions_of(read_query.actions, private.actions());
  v_query.min_confidence := read_query.min_confidence;
  v_query.from_time := coalesce(read_query.from_time, '-infinity');
  v_query.to_time := coalesce(read_query.to_time, 'infinity');
  v_query.before_time := v_start.generated_at;
  v_query.before_seq := v_start.seq;
  v_query.after_seq := greatest(read_query.after_seq, 0);
  v_query.until_seq := 9223372036854775807;
  v_query.row_limit := v_page_size + 1;
  if not v_query.newest then
    v_query.after_seq := greatest(v_query.after_seq, v_start.seq);
    v_query.before_time := 'infinity';
    v_query.before_seq := 9223372036854775807;
  end if;
  return v_query;
end
$$;

comment on function private.read_query is
'The arguments of public.query_signals as a query, for a caller who may read; PT400 for one that is
not allowed.';

create function private.heap_signals(query private.signal_query)
returns private.signals[]
language plpgsql
stable
set search_path = ''
-- One plan for all, by index and in order, whatever the statistics say: planning all partitions anew
-- takes longer than reading the page.
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_first_trader_no integer := 0;
  v_last_trader_no integer := 2147483647;
  v_first_symbol text := '';
  -- Above all the letters that a symbol may have.
  v_last_symbol text := '~';
begin
  if query.trader_nos is not null then
    select min(each), max(each) into v_first_trader_no, v_last_trader_no
    from unnest(query.trader_nos) as each;
  end if;
  if query.symbols is not null then
    select min(each collate "C"), max(each collate "C") into v_first_symbol, v_last_symbol
    from unnest(query.symbols) as each;
  end if;
  if query.newest then
    return array(
      select signal
      from private.signals as signal
      where signal.generated_at >= query.from_time
        and signal.generated_at < query.to_time
        and signal.generated_at <= query.before_time
        and (signal.generated_at, signal.seq) < (query.before_time, query.before_seq)
        and signal.seq > query.after_seq
        -- All that is asked for lies between these, and the index can tell: rows of other traders and
        -- symbols are passed over there, and not fetched.
        and signal.trader_no between v_first_trader_no and v_last_trader_no
        and signal.symbol between v_first_symbol and v_last_symbol
        and (signal.trader_no = any(query.trader_nos)) is not false
        and (signal.symbol = any(query.symbols)) is not false
        and (signal.timeframe = any(query.timeframes)) is not false
        and (signal.action = any(query.actions)) is not false
        and (signal.confidence >= query.min_confidence) is not false
      order by signal.generated_at desc, signal.seq desc
      limit query.row_limit);
  end if;
  return array(
    select signal
    from private.signals as signal
    where signal.seq > query.after_seq
      and signal.seq <= query.until_seq
      and signal.generated_at >= query.from_time
      and signal.generated_at < query.to_time
      and (signal.trader_no = any(query.trader_nos)) is not false
      and (signal.symbol = any(query.symbols)) is not false
      and (signal.timeframe = any(query.timeframes)) is not false
      and (signal.action = any(query.actions)) is not false
      and (signal.confidence >= query.min_confidence) is not false
    order by signal.seq
    limit query.row_limit);
end
$$;

comment on function private.heap_signals is
'The first signals of the query that are not packed, in its order.';

create function private.open_segments(query private.signal_query)
returns refcursor
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_segments refcursor;
begin
  -- A plan of its own for each call would lock fewer partitions in the newest order, 40 of 61 with 13
  -- months of them; but by seq it would lock twice as many, with all of their indexes, to be planned.
  if query.newest then
    open v_segments for
      select segment.*
      from private.segments as segment
      where segment.last_generated_at >= query.from_time
        and segment.first_generated_at >= date_trunc('month', query.from_time, 'utc')
        and segment.first_generated_at < query.to_time
        and segment.first_generated_at <= query.before_time
        -- A segment lies in one month, so the index need not be read from its end.
        and segment.last_generated_at
        < date_trunc('month', least(query.before_time, query.to_time), 'utc') + interval '32 days'
        and segment.last_seq > query.after_seq
        and (segment.trader_nos && query.trader_nos) is not false
        and (segment.symbols && query.symbols) is not false
        and (segment.timeframes && query.timeframes) is not false
        and (segment.actions && query.actions) is not false
        and (segment.confidence_max >= query.min_confidence) is not false
      order by segment.last_generated_at desc;
    return v_segments;
  end if;
  open v_segments for
    select segment.*
    from private.segments as segment
    where segment.last_seq > query.after_seq
      and segment.last_seq <= query.until_seq | private.seq_block()
      and segment.first_seq <= query.until_seq
      -- Written so that the planner does not take the index by time for these.
      and (segment.last_generated_at >= query.from_time) is not false
      and (segment.first_generated_at < query.to_time) is not false
      and (segment.trader_nos && query.trader_nos) is not false
      and (segment.symbols && query.symbols) is not false
      and (segment.timeframes && query.timeframes) is not false
      and (segment.actions && query.actions) is not false
      and (segment.confidence_max >= query.min_confidence) is not false
    -- The order of the index by seq: of a partition that is still empty, no other could be taken.
    order by segment.last_seq;
  return v_segments;
end
$$;

comment on function private.open_segments is
'A cursor over the segments that may hold signals of the query, in its order: by the newest signal of
each, or by the highest seq. The arrays of values stay on disk until one is asked for.';

create function private.without_idle_filters(
  query private.signal_query,
  segment private.segments
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
begin
  if segment.trader_nos <@ query.trader_nos then
    query.trader_nos := null;
  end if;
  if segment.symbols <@ query.symbols then
    query.symbols := null;
  end if;
  if segment.timeframes <@ query.timeframes then
    query.timeframes := null;
  end if;
  if segment.actions <@ query.actions then
    query.actions := null;
  end if;
  if segment.confidence_min >= query.min_confidence then
    query.min_confidence := null;
  end if;
  return without_idle_filters.query;
end
$$;

comment on function private.without_idle_filters is
'The query without the filters that every signal of the segment passes.';

create function private.span_of(
  query private.signal_query,
  segment private.segments,
  out first integer,
  out last integer,
  out is_exact boolean
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_times timestamptz[];
  v_before integer;
begin
  first := 1;
  last := segment.signals;
  if segment.first_generated_at < query.from_time
    or segment.last_generated_at >= least(query.to_time, query.before_time) then
    -- The times are in order, so width_bucket finds by bisection how many come before another.
    v_times := segment.generated_at_values;
    first := 1 + width_bucket(query.from_time - interval '1 microsecond', v_times);
    v_before := width_bucket(
      least(query.to_time, query.before_time) - interval '1 microsecond', v_times);
    last := v_before + case when query.before_time < query.to_time then (
      select count(*)
      from unnest(segment.seq_offsets[v_before + 1:width_bucket(query.before_time, v_times)])
        with ordinality as tie (value, n)
      where segment.first_seq - 1 + v_before + tie.n + tie.value < query.before_seq)
    else 0 end;
  end if;
  is_exact := query.newest and segment.first_seq > query.after_seq
    and segment.last_seq <= query.until_seq;
  if not is_exact and 0 = all(segment.seq_offsets) then
    -- By time and by seq the order is the same, and seq has no gap.
    first := greatest(first, query.after_seq - segment.first_seq + 2);
    last := least(last, query.until_seq - segment.first_seq + 1);
    is_exact := true;
  end if;
end
$$;

comment on function private.span_of is
'From which to which position of a segment signals of the query can be: all that are within its limits
of time are. is_exact tells that these are within its limits of seq, too, and in its order or, for the
newest, in the reverse of it.';

create function private.equal_positions(
  query private.signal_query,
  segment private.segments
)
returns integer[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_symbol_positions integer[] := private.positions_of(query.symbols, segment.symbols);
begin
  return case
    when cardinality(v_symbol_positions) = 1
      then array_positions(segment.symbol_positions, v_symbol_positions[1]::smallint)
    when cardinality(query.trader_nos) = 1
      then array_positions(segment.trader_no_values, query.trader_nos[1])
    when cardinality(query.timeframes) = 1
      then array_positions(segment.timeframe_values, query.timeframes[1])
    when cardinality(query.actions) = 1
      then array_positions(segment.action_values, query.actions[1])
  end;
end
$$;

comment on function private.equal_positions is
'Where in a segment the signals are that pass one of the query''s filters, the first that asks for one
value; null when none does. To compare an array with one value takes a hundredth of testing each.';

create function private.tested_positions(
  query private.signal_query,
  segment private.segments,
  positions integer[]
)
returns integer[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_symbol_positions integer[] := private.positions_of(query.symbols, segment.symbols);
  v_is_by_time boolean := query.newest and segment.first_seq > query.after_seq
    and segment.last_seq <= query.until_seq;
begin
  return array(
    select n
    from (
      -- Only the values that the query asks about are unpacked, and each array once.
      select
        case when not v_is_by_time then segment.seq_offsets[:] end as seq_offset,
        case when query.trader_nos is not null then segment.trader_no_values[:] end as trader_no,
        case when query.symbols is not null then segment.symbol_positions[:] end
          as symbol_position,
        case when query.timeframes is not null then segment.timeframe_values[:] end as timeframe,
        case when query.actions is not null then segment.action_values[:] end as action,
        case when query.min_confidence is not null then segment.confidence_values[:] end
          as confidence
      offset 0
    ) as part
    cross join unnest(positions) as n
    cross join lateral (select segment.first_seq - 1 + n + part.seq_offset[n] as seq) as value
    where (part.symbol_position[n] = any(v_symbol_positions)) is not false
      and (part.trader_no[n] = any(query.trader_nos)) is not false
      and (part.timeframe[n] = any(query.timeframes)) is not false
      and (part.action[n] = any(query.actions)) is not false
      and (part.confidence[n] >= query.min_confidence) is not false
      and (value.seq > query.after_seq) is not false
      and (value.seq <= query.until_seq) is not false
    order by case when query.newest then n else value.seq end
    limit case when not query.newest then query.row_limit end);
end
$$;

comment on function private.tested_positions is
'Those of the positions in a segment whose signals pass all filters and the limits of seq, in the order
of time or, for a query by seq, of seq.';

create function private.matching_positions(
  query private.signal_query,
  segment private.segments
)
returns integer[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query := private.without_idle_filters(query, segment);
  v_filters integer := num_nonnulls(v_query.trader_nos, v_query.symbols, v_query.timeframes,
    v_query.actions, v_query.min_confidence);
  v_span record := private.span_of(query, segment);
  v_positions integer[];
begin
  if v_span.is_exact and v_filters = 0 then
    return array(select generate_series(
      greatest(v_span.first, case when query.newest then v_span.last - query.row_limit + 1 end),
      least(v_span.last, case when not query.newest then v_span.first + query.row_limit - 1 end)));
  end if;
  v_positions := private.equal_positions(v_query, segment);
  if v_positions is null then
    v_positions := private.tested_positions(
      v_query, segment, array(select generate_series(v_span.first, v_span.last)));
  else
    v_positions := v_positions[
      1 + width_bucket(v_span.first - 1, v_positions):width_bucket(v_span.last, v_positions)];
    if not v_span.is_exact or v_filters > 1 then
      v_positions := private.tested_positions(v_query, segment, v_positions);
    end if;
  end if;
  -- In the order of time the last are the newest.
  return case
    when query.newest
      then v_positions[greatest(cardinality(v_positions) - query.row_limit, 0) + 1:]
    else v_positions[:query.row_limit]
  end;
end
$$;

comment on function private.matching_positions is
'Where in a segment the first signals of the query are.';

create function private.signals_at_positions(
  segment private.segments,
  positions integer[]
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_first integer := (select min(position) from unnest(positions) as position);
  v_last integer := (select max(position) from unnest(positions) as position);
  -- An array with nulls has to be searched for each element, unless it is in a variable.
  v_stop_losses double precision[] := segment.stop_loss_values[v_first:v_last];
  v_take_profits double precision[] := segment.take_profit_values[v_first:v_last];
  v_valid_for interval[] := segment.valid_for_values[v_first:v_last];
  v_metadata jsonb[] := segment.metadata_values[v_first:v_last];
begin
  return array(
    select (
      part.generated_at[n], segment.first_seq + v_first - 2 + n + part.seq_offset[n],
      part.confidence[n], part.price[n], v_stop_losses[n], v_take_profits[n],
      part.generated_at[n] + v_valid_for[n], segment.account_no, part.trader_no[n],
      part.timeframe[n], part.action[n], part.symbols[part.symbol_position[n]], v_metadata[n]
    )::private.signals
    from (
      -- A part of an array is unpacked once; an element of an array on disk would unpack it anew.
      select
        segment.generated_at_values[v_first:v_last] as generated_at,
        segment.seq_offsets[v_first:v_last] as seq_offset,
        segment.confidence_values[v_first:v_last] as confidence,
        segment.price_values[v_first:v_last] as price,
        segment.trader_no_values[v_first:v_last] as trader_no,
        segment.timeframe_values[v_first:v_last] as timeframe,
        segment.action_values[v_first:v_last] as action,
        segment.symbol_positions[v_first:v_last] as symbol_position,
        segment.symbols[:] as symbols
      offset 0
    ) as part
    cross join (
      select position - v_first + 1 as n from unnest(positions) as position
    ) as place);
end
$$;

comment on function private.signals_at_positions is 'The signals at these positions of a segment.';

create function private.first_signals(
  query private.signal_query,
  signals private.signals[]
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return array(
    select signal
    from unnest(first_signals.signals) as signal
    order by
      case when query.newest then signal.generated_at end desc,
      case when query.newest then -signal.seq else signal.seq end
    limit query.row_limit);
end
$$;

comment on function private.first_signals is
'As many of the signals as the query wants, in its order.';

create function private.with_packed_signals(
  query private.signal_query,
  signals private.signals[]
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query := query;
  v_signals private.signals[] := with_packed_signals.signals;
  v_last private.signals := v_signals[query.row_limit];
  v_segments refcursor := private.open_segments(query);
  v_segment private.segments;
  v_positions integer[];
begin
  loop
    fetch v_segments into v_segment;
    -- Segments may overlap. What decides is that no later one can hold a signal of the page.
    exit when not found
      or query.newest and v_segment.last_generated_at < v_last.generated_at;
    continue when not query.newest and v_segment.first_seq > v_last.seq;
    v_positions := private.matching_positions(v_query, v_segment);
    continue when v_positions = '{}';
    v_signals := v_signals || private.signals_at_positions(v_segment, v_positions);
    continue when cardinality(v_signals) < query.row_limit;
    v_signals := private.first_signals(query, v_signals);
    v_last := v_signals[query.row_limit];
    -- The page is full: of further segments only what comes before its end is wanted.
    if query.newest then
      v_query.from_time := greatest(query.from_time, v_last.generated_at);
    else
      v_query.until_seq := v_last.seq;
    end if;
  end loop;
  close v_segments;
  return case when v_last is null then private.first_signals(query, v_signals) else v_signals end;
end
$$;

comment on function private.with_packed_signals is
'The first signals of the query, given those that are not packed. Segments are opened one by one until
the page is full.';

create function private.newest_signals(
  query private.signal_query,
  packed_until timestamptz
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query := query;
  v_signals private.signals[] := private.heap_signals(query);
  v_end timestamptz := least(query.to_time, query.before_time, newest_signals.packed_until);
  v_reach interval;
begin
  -- Nothing is packed, also when there is no account yet, or what is comes after the page.
  if (newest_signals.packed_until > '-infinity') is not true
    or cardinality(v_signals) = query.row_limit
    and v_signals[query.row_limit].generated_at > newest_signals.packed_until then
    return v_signals;
  end if;
  -- Month by month, so that the many partitions of years ago are opened only by who reads so far. A
  -- segment lies in one month.
  foreach v_reach in array array[interval '1 month', '1 year', 'infinity'] loop
    v_query.from_time := greatest(
      query.from_time, date_trunc('month', v_end - v_reach, 'utc'));
    v_signals := private.with_packed_signals(v_query, v_signals);
    exit when v_query.from_time = query.from_time
      or v_signals[query.row_limit].generated_at >= v_query.from_time;
    v_query.to_time := v_query.from_time;
  end loop;
  return v_signals;
end
$$;

comment on function private.newest_signals is
'The first signals of the query, newest first. packed_until is the account''s.';

create function private.signals_in_order(
  query private.signal_query,
  last_seq bigint
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query := query;
  v_window bigint := query.row_limit::bigint;
  v_found private.signals[];
  v_signals private.signals[] := array[]::private.signals[];
begin
  while v_query.after_seq < signals_in_order.last_seq and v_query.row_limit > 0 loop
    -- seq has no gaps, so without a filter the first window is the page.
    v_query.until_seq := least(v_query.after_seq + v_window, signals_in_order.last_seq);
    v_found := private.heap_signals(v_query);
    if cardinality(v_found) < v_query.until_seq - v_query.after_seq then
      v_found := private.with_packed_signals(v_query, v_found);
    end if;
    v_signals := v_signals || v_found;
    v_query.row_limit := v_query.row_limit - cardinality(v_found);
    v_query.after_seq := v_query.until_seq;
    v_window := v_window * 4;
  end loop;
  return v_signals;
end
$$;

comment on function private.signals_in_order is
'The first signals of the query, by seq: in windows of seq that grow while a filter leaves them empty.';

create function private.signals_json(
  signals private.signals[],
  newest boolean,
  have_events boolean
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_now timestamptz := private.clock();
  v_generated text := private.status_at(null, null, v_now);
  v_expired text := private.status_at(null, v_now, v_now);
begin
  return array_to_json(array(
    select row_to_json(page)
    from (
      select
        shown.signal_id, shown.seq, shown.trader_id, shown.symbol, shown.timeframe,
        shown.generated_at, shown.action, shown.confidence, shown.price, shown.stop_loss,
        shown.take_profit, shown.valid_until, shown.metadata,
        coalesce(
          state.status, case when shown.valid_until <= v_now then v_expired else v_generated end
        ) as status,
        case
          when num_nonnulls(state.entry_price, state.exit_price, state.reason) > 0
            then json_strip_nulls(json_build_object(
              'entry_price', state.entry_price, 'exit_price', state.exit_price,
              'close_reason', state.close_reason, 'return', state.return, 'fees', state.fees,
              'reason', state.reason))
        end as outcome
      from private.shown_signals(signals_json.signals) as shown
      -- Most accounts report no events, and their pages need not look for any.
      left join private.statuses_of(
        case when signals_json.have_events then signals_json.signals end
      ) as state on state.seq = shown.seq and state.generated_at = shown.generated_at
      order by
        case when signals_json.newest then shown.generated_at end desc,
        case when signals_json.newest then -shown.seq else shown.seq end
    ) as page));
end
$$;

comment on function private.signals_json is
'The signals as clients see them, with their status and what came of them, in the order of the query.
have_events tells whether the account has any lifecycle event.';

create function private.query_signals(query private.signal_query)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts;
  v_signals private.signals[];
  v_page_size integer := query.row_limit - 1;
  v_cursor text;
begin
  select account.* into v_account
  from private.accounts as account
  where account.account_id = auth.uid();
  v_signals := case
    when query.newest then private.newest_signals(query, v_account.packed_until)
    else private.signals_in_order(query, v_account.last_seq)
  end;
  -- One signal more than the page was asked for: it tells that there is a next page.
  if cardinality(v_signals) > v_page_size then
    v_signals := v_signals[:v_page_size];
    v_cursor := private.encode_cursor(
      case when query.newest then 'newest' else 'seq' end,
      v_signals[v_page_size].generated_at, v_signals[v_page_size].seq);
  end if;
  return json_build_object(
    'signals', private.signals_json(v_signals, query.newest, v_account.last_event_seq > 0),
    'next_cursor', v_cursor,
    'last_seq', coalesce(v_account.last_seq, 0));
end
$$;

comment on function private.query_signals is
'Body of public.query_signals. private.read_query has asked for the scope; the policies ask again.';

create function public.query_signals(
  traders uuid[] default null,
  symbols text[] default null,
  timeframes text[] default null,
  actions text[] default null,
  min_confidence double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null,
  after_seq bigint default null,
  sort text default null,
  cursor text default null,
  page_size integer default 100
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.query_signals(private.read_query(
    traders, symbols, timeframes, actions, min_confidence, "from", "to", after_seq, sort, cursor,
    page_size))
$$;

comment on function public.query_signals is
'A page of the caller''s signals: newest first, or by seq (the default with after_seq). from is
inclusive, to exclusive. last_seq is the account''s in the same snapshot: when next_cursor is null,
every signal of the filter up to last_seq has been returned.';

grant execute on function private.to_base64url to authenticated;
grant execute on function private.from_base64url to authenticated;
grant execute on function private.encode_cursor to authenticated;
grant execute on function private.decode_cursor to authenticated;
grant execute on function private.require_query to authenticated;
grant execute on function private.positions_of to authenticated;
grant execute on function private.read_query to authenticated;
grant execute on function private.heap_signals to authenticated;
grant execute on function private.open_segments to authenticated;
grant execute on function private.without_idle_filters to authenticated;
grant execute on function private.span_of to authenticated;
grant execute on function private.equal_positions to authenticated;
grant execute on function private.tested_positions to authenticated;
grant execute on function private.matching_positions to authenticated;
grant execute on function private.signals_at_positions to authenticated;
grant execute on function private.first_signals to authenticated;
grant execute on function private.with_packed_signals to authenticated;
grant execute on function private.newest_signals to authenticated;
grant execute on function private.signals_in_order to authenticated;
grant execute on function private.signals_json to authenticated;
grant execute on function private.query_signals to authenticated;
grant execute on function public.query_signals to authenticated;
