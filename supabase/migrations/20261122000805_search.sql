-- The search: the first signals of a query by time or by seq, either way, wherever they are stored.
-- Row-level security decides whose signals; they are found by index in the heap and in the segments.
-- Must never break: pages joined are the list, with nothing twice and nothing left out. What is skipped
-- goes by what packing keeps: nothing packed is later than packed_until, the columns of a segment tell of
-- all its signals, and its positions are in the order of time.

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
  v_first_symbol text := coalesce(query.first_symbol, '');
  -- Above all the letters that a symbol may have.
  v_last_symbol text := coalesce(query.last_symbol, '~');
begin
  -- All that is asked for lies between these, and the index by time can tell: rows of other traders and
  -- symbols are passed over there, and not fetched.
  if query.trader_nos is not null then
    select min(each), max(each) into v_first_trader_no, v_last_trader_no
    from unnest(query.trader_nos) as each;
  end if;
  if query.symbols is not null then
    select min(each collate "C"), max(each collate "C") into v_first_symbol, v_last_symbol
    from unnest(query.symbols) as each;
  end if;
  if query.sort = 'newest' then
    return array(
      select signal
      from private.signals as signal
      where signal.generated_at >= query.from_time
        and signal.generated_at < query.to_time
        and signal.generated_at <= query.start_time
        and (signal.generated_at, signal.seq) < (query.start_time, query.start_seq)
        and signal.seq > query.after_seq
        and signal.seq <= query.until_seq
        and signal.trader_no between v_first_trader_no and v_last_trader_no
        and signal.symbol between v_first_symbol and v_last_symbol
        and (signal.trader_no = any(query.trader_nos)) is not false
        and (signal.symbol = any(query.symbols)) is not false
        and (signal.timeframe = any(query.timeframes)) is not false
        and (signal.action = any(query.actions)) is not false
        and (signal.confidence between query.min_confidence and query.max_confidence) is not false
        and (signal.price between query.min_price and query.max_price) is not false
        and (coalesce(signal.metadata, '{}') @> any(query.tags)) is not false
      order by signal.generated_at desc, signal.seq desc
      limit query.row_limit);
  elsif query.sort = 'oldest' then
    return array(
      select signal
      from private.signals as signal
      where signal.generated_at >= query.from_time
        and signal.generated_at < query.to_time
        and signal.generated_at >= query.start_time
        and (signal.generated_at, signal.seq) > (query.start_time, query.start_seq)
        and signal.seq > query.after_seq
        and signal.seq <= query.until_seq
        and signal.trader_no between v_first_trader_no and v_last_trader_no
        and signal.symbol between v_first_symbol and v_last_symbol
        and (signal.trader_no = any(query.trader_nos)) is not false
        and (signal.symbol = any(query.symbols)) is not false
        and (signal.timeframe = any(query.timeframes)) is not false
        and (signal.action = any(query.actions)) is not false
        and (signal.confidence between query.min_confidence and query.max_confidence) is not false
        and (signal.price between query.min_price and query.max_price) is not false
        and (coalesce(signal.metadata, '{}') @> any(query.tags)) is not false
      order by signal.generated_at, signal.seq
      limit query.row_limit);
  end if;
  return array(
    select signal
    from private.signals as signal
    where signal.seq > query.after_seq
      and signal.seq <= query.until_seq
      and signal.generated_at >= query.from_time
      and signal.generated_at < query.to_time
      and (signal.symbol between query.first_symbol and query.last_symbol) is not false
      and (signal.trader_no = any(query.trader_nos)) is not false
      and (signal.symbol = any(query.symbols)) is not false
      and (signal.timeframe = any(query.timeframes)) is not false
      and (signal.action = any(query.actions)) is not false
      and (signal.confidence between query.min_confidence and query.max_confidence) is not false
      and (signal.price between query.min_price and query.max_price) is not false
      and (coalesce(signal.metadata, '{}') @> any(query.tags)) is not false
    order by signal.seq
    limit query.row_limit);
end
$$;

comment on function private.heap_signals is
'The first signals of the query that are not packed, in its order: newest, oldest or seq.';

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
  if query.sort = 'newest' then
    open v_segments for
      select segment.*
      from private.segments as segment
      where segment.last_generated_at >= query.from_time
        and segment.first_generated_at >= date_trunc('month', query.from_time, 'utc')
        and segment.first_generated_at < query.to_time
        and segment.first_generated_at <= query.start_time
        -- A segment lies in one month, so the index need not be read from its end.
        and segment.last_generated_at
        < date_trunc('month', least(query.start_time, query.to_time), 'utc') + interval '32 days'
        and segment.last_seq > query.after_seq
        and (segment.first_seq <= query.until_seq) is not false
        and (segment.trader_nos && query.trader_nos) is not false
        and (segment.symbols && query.symbols) is not false
        and (width_bucket(query.last_symbol, segment.symbols)
          > width_bucket(query.first_symbol, segment.symbols)
          or query.first_symbol = any(segment.symbols)) is not false
        and (segment.timeframes && query.timeframes) is not false
        and (segment.actions && query.actions) is not false
        and (segment.confidence_max >= query.min_confidence) is not false
        and (segment.confidence_min <= query.max_confidence) is not false
        and (segment.price_max >= query.min_price) is not false
        and (segment.price_min <= query.max_price) is not false
        and (query.tags is null or segment.metadata_values is not null)
      order by segment.last_generated_at desc;
  elsif query.sort = 'oldest' then
    open v_segments for
      select segment.*
      from private.segments as segment
      where segment.first_generated_at < query.to_time
        -- Nor from its beginning.
        and segment.first_generated_at
        >= date_trunc('month', greatest(query.start_time, query.from_time), 'utc')
        and segment.last_generated_at >= query.from_time
        and segment.last_generated_at >= query.start_time
        and segment.last_seq > query.after_seq
        and (segment.first_seq <= query.until_seq) is not false
        and (segment.trader_nos && query.trader_nos) is not false
        and (segment.symbols && query.symbols) is not false
        and (width_bucket(query.last_symbol, segment.symbols)
          > width_bucket(query.first_symbol, segment.symbols)
          or query.first_symbol = any(segment.symbols)) is not false
        and (segment.timeframes && query.timeframes) is not false
        and (segment.actions && query.actions) is not false
        and (segment.confidence_max >= query.min_confidence) is not false
        and (segment.confidence_min <= query.max_confidence) is not false
        and (segment.price_max >= query.min_price) is not false
        and (segment.price_min <= query.max_price) is not false
        and (query.tags is null or segment.metadata_values is not null)
      order by segment.first_generated_at;
  else
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
        and (width_bucket(query.last_symbol, segment.symbols)
          > width_bucket(query.first_symbol, segment.symbols)
          or query.first_symbol = any(segment.symbols)) is not false
        and (segment.timeframes && query.timeframes) is not false
        and (segment.actions && query.actions) is not false
        and (segment.confidence_max >= query.min_confidence) is not false
        and (segment.confidence_min <= query.max_confidence) is not false
        and (segment.price_max >= query.min_price) is not false
        and (segment.price_min <= query.max_price) is not false
        and (query.tags is null or segment.metadata_values is not null)
      -- The order of the index by seq: of a partition that is still empty, no other could be taken.
      order by segment.last_seq;
  end if;
  return v_segments;
end
$$;

comment on function private.open_segments is
'A cursor over the segments that may hold signals of the query, in its order: by the newest signal of
each, by the oldest, or by the highest seq. The arrays of values stay on disk until one is asked for.';

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
  if segment.symbols[1] >= query.first_symbol
    and segment.symbols[cardinality(segment.symbols)] <= query.last_symbol then
    query.first_symbol := null;
    query.last_symbol := null;
  end if;
  if segment.confidence_min >= query.min_confidence then
    query.min_confidence := null;
  end if;
  if segment.confidence_max <= query.max_confidence then
    query.max_confidence := null;
  end if;
  if segment.price_min >= query.min_price then
    query.min_price := null;
  end if;
  if segment.price_max <= query.max_price then
    query.max_price := null;
  end if;
  return without_idle_filters.query;
end
$$;

comment on function private.without_idle_filters is
'The query without the filters that every signal of the segment passes.';

create function private.tied_before(
  segment private.segments,
  at timestamptz,
  seq bigint
)
returns integer
language plpgsql
stable
set search_path = ''
as $$
declare
  v_times timestamptz[] := segment.generated_at_values;
  v_earlier integer := width_bucket(tied_before.at - interval '1 microsecond', v_times);
begin
  return (
    select count(*)
    from unnest(segment.seq_offsets[v_earlier + 1:width_bucket(tied_before.at, v_times)])
      with ordinality as tie (value, n)
    where segment.first_seq - 1 + v_earlier + tie.n + tie.value < tied_before.seq);
end
$$;

comment on function private.tied_before is
'How many signals of a segment are of this very time and of a lower seq.';

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
  v_is_newest boolean := query.sort = 'newest';
  v_is_oldest boolean := query.sort = 'oldest';
  v_from timestamptz := greatest(
    query.from_time, case when v_is_oldest then query.start_time end);
  v_to timestamptz := least(query.to_time, case when v_is_newest then query.start_time end);
  v_times timestamptz[];
begin
  first := 1;
  last := segment.signals;
  if segment.first_generated_at < query.from_time or segment.last_generated_at >= v_to
    or v_is_oldest and segment.first_generated_at <= query.start_time then
    -- The times are in order, so width_bucket finds by bisection how many come before another.
    v_times := segment.generated_at_values;
    first := 1 + width_bucket(v_from - interval '1 microsecond', v_times);
    last := width_bucket(v_to - interval '1 microsecond', v_times);
    -- Of the signals generated when the page starts, some come before its start and some behind.
    if v_is_newest and query.start_time < query.to_time then
      last := last + private.tied_before(segment, query.start_time, query.start_seq);
    elsif v_is_oldest and query.start_time >= query.from_time then
      first := first + private.tied_before(segment, query.start_time, query.start_seq + 1);
    end if;
  end if;
  is_exact := (v_is_newest or v_is_oldest) and segment.first_seq > query.after_seq
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

create function private.symbol_positions(
  query private.signal_query,
  segment private.segments
)
returns integer[]
language plpgsql
stable
set search_path = ''
as $$
begin
  if query.first_symbol is null then
    return private.positions_of(query.symbols, segment.symbols);
  end if;
  return array(
    select position
    from unnest(segment.symbols) with ordinality as each (symbol, position)
    where each.symbol between query.first_symbol and query.last_symbol);
end
$$;

comment on function private.symbol_positions is
'Where the symbols of the query are in the list of a segment, from 1; null when it asks for all.';

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
  v_symbol_positions integer[] := private.symbol_positions(query, segment);
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
  v_symbol_positions integer[] := private.symbol_positions(query, segment);
  v_is_by_time boolean := query.sort in ('newest', 'oldest');
  v_is_seq_tested boolean := not v_is_by_time or segment.first_seq <= query.after_seq
    or segment.last_seq > query.until_seq;
  -- To find an element of unequal length all before it are passed, unless the array is in a variable.
  v_metadata jsonb[] := case when query.tags is not null then segment.metadata_values end;
begin
  return array(
    select n
    from (
      -- Only the values that the query asks about are unpacked, and each array once.
      select
        case when v_is_seq_tested then segment.seq_offsets[:] end as seq_offset,
        case when query.trader_nos is not null then segment.trader_no_values[:] end as trader_no,
        case when v_symbol_positions is not null then segment.symbol_positions[:] end
          as symbol_position,
        case when query.timeframes is not null then segment.timeframe_values[:] end as timeframe,
        case when query.actions is not null then segment.action_values[:] end as action,
        case
          when num_nonnulls(query.min_confidence, query.max_confidence) > 0
            then segment.confidence_values[:]
        end as confidence,
        case
          when num_nonnulls(query.min_price, query.max_price) > 0 then segment.price_values[:]
        end as price
      offset 0
    ) as part
    cross join unnest(positions) as n
    cross join lateral (select segment.first_seq - 1 + n + part.seq_offset[n] as seq) as value
    where (part.symbol_position[n] = any(v_symbol_positions)) is not false
      and (part.trader_no[n] = any(query.trader_nos)) is not false
      and (part.timeframe[n] = any(query.timeframes)) is not false
      and (part.action[n] = any(query.actions)) is not false
      and (part.confidence[n] >= query.min_confidence) is not false
      and (part.confidence[n] <= query.max_confidence) is not false
      and (part.price[n] >= query.min_price) is not false
      and (part.price[n] <= query.max_price) is not false
      and (coalesce(v_metadata[n], '{}') @> any(query.tags)) is not false
      and (value.seq > query.after_seq) is not false
      and (value.seq <= query.until_seq) is not false
    order by case when v_is_by_time then n else value.seq end
    limit case when query.sort <> 'newest' then query.row_limit end);
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
  v_filters integer := num_nonnulls(v_query.trader_nos, v_query.symbols, v_query.first_symbol,
    v_query.timeframes, v_query.actions, v_query.tags, v_query.min_confidence,
    v_query.max_confidence, v_query.min_price, v_query.max_price);
  v_is_newest boolean := query.sort = 'newest';
  v_span record := private.span_of(query, segment);
  v_positions integer[];
begin
  if v_span.is_exact and v_filters = 0 then
    return array(select generate_series(
      greatest(v_span.first, case when v_is_newest then v_span.last - query.row_limit + 1 end),
      least(v_span.last, case when not v_is_newest then v_span.first + query.row_limit - 1 end)));
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
    when v_is_newest
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
  if query.sort = 'newest' then
    return array(
      select signal
      from unnest(first_signals.signals) as signal
      order by signal.generated_at desc, signal.seq desc
      limit query.row_limit);
  elsif query.sort = 'oldest' then
    return array(
      select signal
      from unnest(first_signals.signals) as signal
      order by signal.generated_at, signal.seq
      limit query.row_limit);
  end if;
  return array(
    select signal
    from unnest(first_signals.signals) as signal
    order by case query.sort when 'seq' then signal.seq else -signal.seq end
    limit query.row_limit);
end
$$;

comment on function private.first_signals is
'As many of the signals as the query wants, in its order: by time or by seq, either way.';

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
  v_signal private.signals;
  v_positions integer[];
begin
  loop
    fetch v_segments into v_segment;
    -- Segments may overlap. What decides is that no later one can hold a signal of the page.
    exit when not found
      or query.sort = 'newest' and v_segment.last_generated_at < v_last.generated_at
      or query.sort = 'oldest' and v_segment.first_generated_at > v_last.generated_at;
    continue when query.sort = 'seq' and v_segment.first_seq > v_last.seq;
    v_positions := private.matching_positions(v_query, v_segment);
    continue when v_positions = '{}';
    -- One by one: "||" would copy all that are found already for each segment.
    foreach v_signal in array private.signals_at_positions(v_segment, v_positions) loop
      v_signals := array_append(v_signals, v_signal);
    end loop;
    continue when cardinality(v_signals) < query.row_limit;
    v_signals := private.first_signals(query, v_signals);
    v_last := v_signals[query.row_limit];
    -- The page is full: of further segments only what comes before its end is wanted.
    case query.sort
      when 'newest' then
        v_query.from_time := greatest(query.from_time, v_last.generated_at);
      when 'oldest' then
        v_query.to_time := least(
          query.to_time, v_last.generated_at + interval '1 microsecond');
      else
        v_query.until_seq := v_last.seq;
    end case;
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
  v_end timestamptz := least(query.to_time, query.start_time, newest_signals.packed_until);
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

create function private.oldest_signals(
  query private.signal_query,
  packed_until timestamptz
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_signals private.signals[] := private.heap_signals(query);
begin
  -- Nothing is packed, also when there is no account yet, or what is comes before the page.
  if (oldest_signals.packed_until >= greatest(query.from_time, query.start_time)
    and oldest_signals.packed_until > '-infinity') is not true then
    return v_signals;
  end if;
  return private.with_packed_signals(query, v_signals);
end
$$;

comment on function private.oldest_signals is
'The first signals of the query, oldest first. packed_until is the account''s.';

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
  v_rest private.signal_query := query;
  v_window bigint := query.row_limit;
  v_widest bigint := case query.sort when 'seq' then 1000000000000 else 50000 end;
  v_found private.signals[];
  v_signal private.signals;
  v_signals private.signals[] := array[]::private.signals[];
begin
  v_query.sort := 'seq';
  v_rest.until_seq := least(query.until_seq, signals_in_order.last_seq);
  while v_rest.after_seq < v_rest.until_seq and v_rest.row_limit > 0
    and query.from_time < query.to_time loop
    -- seq has no gaps, so without a filter the first window is the page.
    if query.sort = 'seq' then
      v_query.after_seq := v_rest.after_seq;
      v_query.until_seq := least(v_rest.after_seq + v_window, v_rest.until_seq);
      v_query.row_limit := v_rest.row_limit;
      v_rest.after_seq := v_query.until_seq;
    else
      v_query.until_seq := v_rest.until_seq;
      v_query.after_seq := greatest(v_rest.until_seq - v_window, v_rest.after_seq);
      -- The last of them are wanted, so all are found.
      v_query.row_limit := v_query.until_seq - v_query.after_seq;
      v_rest.until_seq := v_query.after_seq;
    end if;
    v_found := private.heap_signals(v_query);
    if cardinality(v_found) < v_query.until_seq - v_query.after_seq then
      v_found := private.with_packed_signals(v_query, v_found);
    end if;
    if query.sort = '-seq' then
      v_found := private.first_signals(v_rest, v_found);
    end if;
    foreach v_signal in array v_found loop
      v_signals := array_append(v_signals, v_signal);
    end loop;
    v_rest.row_limit := v_rest.row_limit - cardinality(v_found);
    v_window := least(v_window * 4, v_widest);
  end loop;
  return v_signals;
end
$$;

comment on function private.signals_in_order is
'The first signals of the query by seq, upward or downward: in windows of seq that grow while a filter
leaves them empty.';

create function private.found_signals(
  query private.signal_query,
  account private.accounts
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return case query.sort
    when 'newest' then private.newest_signals(query, account.packed_until)
    when 'oldest' then private.oldest_signals(query, account.packed_until)
    else private.signals_in_order(query, coalesce(account.last_seq, 0))
  end;
end
$$;

comment on function private.found_signals is
'The first signals of the query, by time or by seq, wherever the account has them stored. All filters but
statuses are applied.';

grant execute on function private.heap_signals to authenticated;
grant execute on function private.open_segments to authenticated;
grant execute on function private.without_idle_filters to authenticated;
grant execute on function private.tied_before to authenticated;
grant execute on function private.span_of to authenticated;
grant execute on function private.symbol_positions to authenticated;
grant execute on function private.equal_positions to authenticated;
grant execute on function private.tested_positions to authenticated;
grant execute on function private.matching_positions to authenticated;
grant execute on function private.signals_at_positions to authenticated;
grant execute on function private.first_signals to authenticated;
grant execute on function private.with_packed_signals to authenticated;
grant execute on function private.newest_signals to authenticated;
grant execute on function private.oldest_signals to authenticated;
grant execute on function private.signals_in_order to authenticated;
grant execute on function private.found_signals to authenticated;
