-- count_signals and signal_facets: how many signals pass a filter, in all and by value.
-- Whole hours and days are summed up from the rollups and the rest is looked at signal by signal, up to
-- a limit; of what is more, a sample tells.
-- Must never break: a count that says it is exact is the length of the list that query_signals gives for
-- the same filter, and no question makes it look at more than the limits say.

create type private.signal_count as (
  trader_no integer,
  symbol text collate "C",
  timeframe smallint,
  action smallint,
  signals double precision
);

comment on type private.signal_count is
'How many signals of a filter have these four in common: not a whole number when it is estimated.';

create type private.count_part as (
  resolution text,
  query private.signal_query
);

comment on type private.count_part is
'A part of what is to be counted: the rollups of a resolution, or without one the signals themselves.';

create function private.most_signals_counted(exactly boolean)
returns integer
language sql
immutable
set search_path = ''
as $$ select case when exactly then 100000 else 20000 end $$;

comment on function private.most_signals_counted is
'How many signals are looked at one by one for a count that has to be exact, or for one that may be
estimated: half a second and a tenth.';

create function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as $$ select 2500 $$;

comment on function private.counted_at_once is
'How many signals are held in memory to be counted: each may have 2 KB of metadata.';

create function private.most_rollups_counted()
returns integer
language sql
immutable
set search_path = ''
as $$ select 500000 $$;

comment on function private.most_rollups_counted is 'How many rollups are read for one answer.';

create function private.whole_since(
  at timestamptz,
  unit text
)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  select date_trunc(
    whole_since.unit,
    whole_since.at + private.bucket_width(case whole_since.unit when 'hour' then '1h' else '1d' end)
      - interval '1 microsecond', 'UTC')
$$;

comment on function private.whole_since is
'When the first whole hour or day (UTC) begins that is not before a time.';

create function private.spans_to_count(
  from_time timestamptz,
  to_time timestamptz,
  hours_since timestamptz,
  days_since timestamptz
)
returns table (
  resolution text,
  starts timestamptz,
  ends timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_first_hour timestamptz := private.whole_since(greatest(from_time, hours_since), 'hour');
  v_last_hour timestamptz := greatest(date_trunc('hour', to_time, 'UTC'), from_time);
  v_first_day timestamptz := private.whole_since(greatest(from_time, days_since), 'day');
  v_last_day timestamptz := date_trunc('day', to_time, 'UTC');
begin
  if v_first_day >= v_last_day then
    v_first_day := v_last_hour;
    v_last_day := v_last_hour;
  elsif v_last_day < hours_since then
    v_last_hour := v_last_day;
  end if;
  v_first_hour := least(v_first_hour, v_first_day);
  return query
    select span.* from (
      values
      (null, from_time, v_first_hour),
      ('1h', v_first_hour, v_first_day),
      ('1d', v_first_day, v_last_day),
      ('1h', v_last_day, v_last_hour),
      (null, v_last_hour, to_time)
    ) as span (resolution, starts, ends)
    where span.starts < span.ends;
end
$$;

comment on function private.spans_to_count is
'A span of time cut into the whole days and hours that there are rollups of, and the ends that there are
not. hours_since and days_since say from when on there are.';

create function private.is_summed_up(query private.signal_query)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select
    num_nonnulls(
      query.statuses, query.tags, query.min_confidence, query.max_confidence, query.min_price,
      query.max_price) = 0
    and query.after_seq = 0 and query.until_seq = 9223372036854775807
$$;

comment on function private.is_summed_up is
'Whether rollups can tell how many signals pass the filter: they know no single confidence, price, seq,
tag or status.';

create function private.rolled_up_seq(account private.accounts)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce((
    select head.seq from private.rollup_heads as head
    where head.account_no = account.account_no), 0);
end
$$;

comment on function private.rolled_up_seq is
'Up to which seq the signals of an account are in the rollups.';

create function private.parts_to_count(
  query private.signal_query,
  account private.accounts
)
returns private.count_part[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_kept_since timestamptz := private.kept_since('signals', account.tier);
  v_head_seq bigint := private.rolled_up_seq(account);
  v_parts private.count_part[] := array[]::private.count_part[];
  v_newer private.signal_query := query;
  v_span record;
begin
  if v_head_seq = 0 or not private.is_summed_up(query) then
    return array[(null, query)::private.count_part];
  end if;
  v_newer.after_seq := v_head_seq;
  for v_span in
    select
      span.*,
      min(span.starts) filter (where span.resolution is not null) over () as summed_from,
      max(span.ends) filter (where span.resolution is not null) over () as summed_to
    from private.spans_to_count(
      query.from_time, query.to_time,
      greatest(private.kept_since('1h', account.tier), v_kept_since),
      greatest(private.kept_since('1d', account.tier), v_kept_since)) as span
  loop
    query.from_time := v_span.starts;
    query.to_time := v_span.ends;
    v_parts := v_parts || (v_span.resolution, query)::private.count_part;
    v_newer.from_time := v_span.summed_from;
    v_newer.to_time := v_span.summed_to;
  end loop;
  -- What of the hours and days is not in the rollups yet.
  return case when v_newer.from_time < v_newer.to_time and account.last_seq > v_head_seq
    then v_parts || (null, v_newer)::private.count_part else v_parts end;
end
$$;

comment on function private.parts_to_count is
'The parts that together hold each signal of the filter once.';

create function private.seqs_of(
  query private.signal_query,
  account private.accounts
)
returns bigint
language sql
immutable
set search_path = ''
as $$
  select greatest(least(coalesce(account.last_seq, 0), query.until_seq) - query.after_seq, 0)
$$;

comment on function private.seqs_of is 'How many seqs are within the limits of the query.';

create function private.in_counting_order(
  query private.signal_query,
  account private.accounts,
  most integer
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
begin
  return private.sorted_by(query, case
    when private.seqs_of(query, account) <= most then 'seq'
    when query.from_time > '-infinity' or query.to_time < 'infinity' then 'newest'
    when query.after_seq > 0 or query.until_seq < account.last_seq then 'seq'
    else 'newest'
  end);
end
$$;

comment on function private.in_counting_order is
'The query by time or by seq, whichever limits it: by the other, all that is between would be read.';

create function private.is_whole(
  query private.signal_query,
  segment private.segments
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_rest private.signal_query := private.without_idle_filters(query, segment);
begin
  return segment.first_generated_at >= query.from_time
    and segment.last_generated_at < query.to_time
    and segment.first_seq > query.after_seq
    and segment.last_seq <= query.until_seq
    and num_nonnulls(
      v_rest.trader_nos, v_rest.symbols, v_rest.first_symbol, v_rest.timeframes, v_rest.actions,
      v_rest.statuses, v_rest.tags, v_rest.min_confidence, v_rest.max_confidence, v_rest.min_price,
      v_rest.max_price) = 0;
end
$$;

comment on function private.is_whole is
'Whether every signal of the segment passes the query, as its columns tell.';

create function private.signals_to_look_at(
  query private.signal_query,
  account private.accounts,
  by_value boolean,
  most integer
)
returns bigint
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  -- To look at the row of a segment takes as long as to look at so many signals.
  v_row constant integer := 20;
  v_seqs bigint := private.seqs_of(query, account);
  v_signals bigint;
  v_segments refcursor;
  v_segment private.segments;
begin
  if v_seqs <= most then
    return v_seqs;
  end if;
  if query.sort = 'seq' then
    select count(*) into v_signals
    from (
      select
      from private.signals as signal
      where signal.seq > query.after_seq
        and signal.seq <= query.until_seq
      limit most + 1
    ) as hot;
  else
    select count(*) into v_signals
    from (
      select
      from private.signals as signal
      where signal.generated_at >= query.from_time
        and signal.generated_at < query.to_time
      limit most + 1
    ) as hot;
  end if;
  v_segments := private.open_segments(query);
  while v_signals <= most loop
    fetch v_segments into v_segment;
    exit when not found;
    v_signals := v_signals + case
      when not by_value and private.is_whole(query, v_segment) then v_row
      else v_segment.signals
    end;
  end loop;
  close v_segments;
  return least(v_signals, v_seqs);
end
$$;

comment on function private.signals_to_look_at is
'How many signals have to be looked at to count those of the query, at most: more than `most` when it is
more. Unless they are counted by value, a segment of which all pass is counted by its row.';

create function private.behind_signal(
  query private.signal_query,
  signal private.signals
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
begin
  return private.started_behind(query, null, signal.generated_at, signal.seq);
end
$$;

comment on function private.behind_signal is
'The query from behind a signal on, by time or by seq as it is sorted.';

create function private.heap_count(query private.signal_query)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_count bigint := 0;
  v_found private.signals[];
begin
  query.row_limit := private.counted_at_once();
  loop
    v_found := private.heap_signals(query);
    v_count := v_count + cardinality(v_found);
    exit when cardinality(v_found) < query.row_limit;
    query := private.behind_signal(query, v_found[query.row_limit]);
  end loop;
  return v_count;
end
$$;

comment on function private.heap_count is
'How many signals of the query are not packed.';

create function private.found_count(query private.signal_query)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_count bigint := private.heap_count(query);
  v_segments refcursor := private.open_segments(query);
  v_segment private.segments;
begin
  loop
    fetch v_segments into v_segment;
    exit when not found;
    v_count := v_count + case
      when private.is_whole(query, v_segment) then v_segment.signals
      else cardinality(private.matching_positions(query, v_segment))
    end;
  end loop;
  close v_segments;
  return v_count;
end
$$;

comment on function private.found_count is
'How many signals the query has, of whatever status: they are found, but not shown.';

create function private.counts_of(signals private.signals[])
returns private.signal_count[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return array(
    select (signal.trader_no, signal.symbol, signal.timeframe, signal.action, count(*))
      ::private.signal_count
    from unnest(counts_of.signals) as signal
    group by signal.trader_no, signal.symbol, signal.timeframe, signal.action);
end
$$;

comment on function private.counts_of is 'The given signals, counted.';

create function private.found_counts(
  query private.signal_query,
  account private.accounts,
  by_value boolean
)
returns private.signal_count[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_found private.signals[];
  v_counts private.signal_count[] := array[]::private.signal_count[];
begin
  if not by_value and query.statuses is null then
    -- More than there are.
    query.row_limit := 1000000000;
    return array[(null, null, null, null, private.found_count(query))::private.signal_count];
  end if;
  query.row_limit := private.counted_at_once();
  loop
    v_found := private.found_signals(query, account);
    v_counts := v_counts
      || private.counts_of(private.with_status(query, v_found, account));
    exit when cardinality(v_found) < query.row_limit;
    query := private.behind_signal(query, v_found[query.row_limit]);
  end loop;
  return v_counts;
end
$$;

comment on function private.found_counts is
'The signals of the query, found and counted, by value or in all. A value may come several times.';

create function private.summed_counts(
  part private.count_part,
  account private.accounts
)
returns private.signal_count[]
language plpgsql
stable
set search_path = ''
-- Planned at each call: the times given leave out partitions.
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_most integer := private.most_rollups_counted();
  v_query private.signal_query := part.query;
  v_read bigint;
  v_counts private.signal_count[];
begin
  with together as materialized (
    select
      rollup.trader_no, rollup.symbol, rollup.timeframe, count(*) as rollups,
      array[
        sum(rollup.enter_long), sum(rollup.exit_long), sum(rollup.enter_short),
        sum(rollup.exit_short)
      ] as signals
    from (
      select stored.*
      from private.rollups as stored
      where stored.account_no = account.account_no
        and stored.resolution = part.resolution
        and stored.bucket >= v_query.from_time
        and stored.bucket < v_query.to_time
        -- With the values given when planned, these are conditions of the primary key's index, or none.
        and (v_query.trader_nos is null or stored.trader_no = any(v_query.trader_nos))
        and (v_query.symbols is null or stored.symbol = any(v_query.symbols))
        and (v_query.first_symbol is null
          or stored.symbol between v_query.first_symbol and v_query.last_symbol)
        and (v_query.timeframes is null or stored.timeframe = any(v_query.timeframes))
      limit v_most + 1
    ) as rollup
    group by rollup.trader_no, rollup.symbol, rollup.timeframe
  )
  select
    (select sum(each.rollups) from together as each),
    array(
      select (each.trader_no, each.symbol, each.timeframe, action.position, action.signals)
        ::private.signal_count
      from together as each
      cross join unnest(each.signals) with ordinality as action (signals, position)
      where action.signals > 0
        and (action.position = any(v_query.actions)) is not false)
  into v_read, v_counts;
  return case when coalesce(v_read, 0) <= v_most then v_counts end;
end
$$;

comment on function private.summed_counts is
'The signals of the query as the rollups of the part have counted them; null when these are too many.';

create function private.exact_counts(
  query private.signal_query,
  account private.accounts,
  by_value boolean,
  most integer
)
returns private.signal_count[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_left bigint := most;
  v_part private.count_part;
  v_counts private.signal_count[];
  v_all private.signal_count[] := array[]::private.signal_count[];
begin
  foreach v_part in array private.parts_to_count(query, account) loop
    if v_part.resolution is not null then
      v_counts := private.summed_counts(v_part, account);
    else
      v_part.query := private.in_counting_order(v_part.query, account, most);
      v_left := v_left - private.signals_to_look_at(
        v_part.query, account, by_value, v_left::integer);
      v_counts := case
        when v_left >= 0 then private.found_counts(v_part.query, account, by_value) end;
    end if;
    if v_counts is null then
      return null;
    end if;
    v_all := v_all || v_counts;
  end loop;
  return v_all;
end
$$;

comment on function private.exact_counts is
'The signals of the query, counted; null when there is more to look at than the limits allow.';

create function private.sampled_counts(
  query private.signal_query,
  account private.accounts
)
returns private.signal_count[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_samples constant integer := 40;
  v_size constant integer := 200;
  v_ends private.signal_query := private.read_filter(
    from_time => query.from_time, to_time => query.to_time,
    after_seq => query.after_seq, until_seq => query.until_seq);
  v_first bigint := query.after_seq + 1;
  v_last bigint := least(query.until_seq, account.last_seq);
  v_seqs bigint;
  v_stride bigint;
  v_found private.signals[] := array[]::private.signals[];
begin
  v_ends.row_limit := 1;
  if query.to_time < 'infinity' then
    v_last := (private.found_signals(v_ends, account))[1].seq;
  end if;
  if query.from_time > '-infinity' then
    v_ends := private.sorted_by(v_ends, 'oldest');
    v_first := (private.found_signals(v_ends, account))[1].seq;
  end if;
  v_seqs := greatest(abs(v_last - v_first) + 1, v_samples * v_size);
  v_first := least(v_first, v_last);
  query := private.sorted_by(query, 'seq');
  query.row_limit := v_size;
  v_stride := v_seqs / v_samples;
  for v_sample in 0..v_samples - 1 loop
    -- At equal distances, whatever comes round in a cycle could be met at the same place each time.
    query.after_seq := v_first - 1 + v_stride * v_sample
      + abs(hashint4(v_sample)::bigint) % (v_stride - v_size + 1);
    query.until_seq := query.after_seq + v_size;
    v_found := v_found
      || private.with_status(query, private.found_signals(query, account), account);
  end loop;
  return array(
    select (each.trader_no, each.symbol, each.timeframe, each.action,
      each.signals * v_seqs / (v_samples * v_size))::private.signal_count
    from unnest(private.counts_of(v_found)) as each);
end
$$;

comment on function private.sampled_counts is
'Of how many signals the query is, by 40 samples of 200 each. They lie between the seqs of the oldest and
the newest signal in its limits, one in each of 40 equal parts, and for the same question at the same
places. Filters, statuses and gaps are in what is found there.';

create function private.caller_account()
returns private.accounts
language sql
stable
set search_path = ''
as $$
  select account from private.accounts as account where account.account_id = auth.uid()
$$;

comment on function private.caller_account is
'The account of the caller; null before its first use.';

create function private.count_signals(
  query private.signal_query,
  exact boolean
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts := private.caller_account();
  v_most integer := private.most_signals_counted(coalesce(count_signals.exact, false));
  v_counts private.signal_count[] := private.exact_counts(
    query, v_account, false, v_most);
  v_is_exact boolean := v_counts is not null;
begin
  if not v_is_exact and count_signals.exact then
    perform private.raise_error(
      400, 'query_too_wide',
      'Cannot count exactly: more than ' || v_most || ' signals would have to be looked at.',
      'Narrow from and to, or let the count be estimated. Where from and to are whole hours (UTC) '
      'and the filters are traders, symbols, timeframes and actions only, nearly any count is exact.');
  end if;
  v_counts := coalesce(v_counts, private.sampled_counts(query, v_account));
  return json_build_object(
    'count', (
      select coalesce(round(sum(each.signals)), 0)::bigint from unnest(v_counts) as each),
    'exact', v_is_exact);
end
$$;

comment on function private.count_signals is
'Body of public.count_signals. private.read_filter has asked for the scope; the policies ask again.';

create function public.count_signals(
  traders uuid[] default null,
  symbols text[] default null,
  symbol_prefix text default null,
  timeframes text[] default null,
  actions text[] default null,
  statuses text[] default null,
  tags text[] default null,
  min_confidence double precision default null,
  max_confidence double precision default null,
  min_price double precision default null,
  max_price double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null,
  after_seq bigint default null,
  until_seq bigint default null,
  exact boolean default false
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.count_signals(
    private.read_filter(
      traders, symbols, symbol_prefix, timeframes, actions, statuses, tags, min_confidence,
      max_confidence, min_price, max_price, "from", "to", after_seq, until_seq),
    exact)
$$;

comment on function public.count_signals is
'How many of the caller''s signals pass a filter, which is that of query_signals. exact tells whether the
count is exact, or estimated from a sample since too much would have to be looked at; with exact => true
that is refused (query_too_wide). By trader, symbol, timeframe, action and time it is exact for nearly
all that is stored: whole hours and days are counted already.';

create function private.facets_of(counts private.signal_count[])
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select json_object_agg(facet.name, coalesce(shown.list, '[]') order by facet.place)
    from unnest(array['symbols', 'traders', 'actions', 'timeframes'])
      with ordinality as facet (name, place)
    left join (
      select
        ranked.name,
        json_agg(
          json_build_object('value', ranked.value, 'count', ranked.signals) order by ranked.rank
        ) filter (where ranked.rank <= 100) as list
      from (
        select
          value.name, value.value, round(sum(each.signals))::bigint as signals,
          row_number() over (
            partition by value.name order by sum(each.signals) desc, value.value collate "C"
          ) as rank
        from unnest(facets_of.counts) as each
        inner join private.traders as trader on trader.trader_no = each.trader_no
        cross join lateral (
          values
          ('symbols', each.symbol),
          ('traders', trader.trader_id::text),
          ('actions', (private.actions())[each.action]),
          ('timeframes', (private.timeframes())[each.timeframe])
        ) as value (name, value)
        group by value.name, value.value
      ) as ranked
      group by ranked.name
    ) as shown on shown.name = facet.name);
end
$$;

comment on function private.facets_of is
'The 100 most frequent symbols and traders, and the actions and timeframes, with how many signals each
has.';

create function private.signal_facets(query private.signal_query)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts := private.caller_account();
  v_counts private.signal_count[] := private.exact_counts(
    query, v_account, true, private.most_signals_counted(false));
begin
  return (
    select json_build_object(
      'symbols', facets -> 'symbols', 'traders', facets -> 'traders',
      'actions', facets -> 'actions', 'timeframes', facets -> 'timeframes',
      'exact', v_counts is not null)
    from private.facets_of(
      coalesce(v_counts, private.sampled_counts(query, v_account))) as facets);
end
$$;

comment on function private.signal_facets is
'Body of public.signal_facets. private.read_filter has asked for the scope; the policies ask again.';

create function public.signal_facets(
  traders uuid[] default null,
  symbols text[] default null,
  symbol_prefix text default null,
  timeframes text[] default null,
  actions text[] default null,
  statuses text[] default null,
  tags text[] default null,
  min_confidence double precision default null,
  max_confidence double precision default null,
  min_price double precision default null,
  max_price double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null,
  after_seq bigint default null,
  until_seq bigint default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.signal_facets(
    private.read_filter(
      traders, symbols, symbol_prefix, timeframes, actions, statuses, tags, min_confidence,
      max_confidence, min_price, max_price, "from", "to", after_seq, until_seq))
$$;

comment on function public.signal_facets is
'Which symbols, traders, actions and timeframes the caller''s signals of a filter have, and how many
signals each: the 100 most frequent, most first. exact as in count_signals: values that are rare are
missing from what is estimated.';

grant execute on function private.most_signals_counted to authenticated;
grant execute on function private.counted_at_once to authenticated;
grant execute on function private.most_rollups_counted to authenticated;
grant execute on function private.whole_since to authenticated;
grant execute on function private.spans_to_count to authenticated;
grant execute on function private.is_summed_up to authenticated;
grant execute on function private.rolled_up_seq to authenticated;
grant execute on function private.parts_to_count to authenticated;
grant execute on function private.seqs_of to authenticated;
grant execute on function private.in_counting_order to authenticated;
grant execute on function private.is_whole to authenticated;
grant execute on function private.signals_to_look_at to authenticated;
grant execute on function private.behind_signal to authenticated;
grant execute on function private.heap_count to authenticated;
grant execute on function private.found_count to authenticated;
grant execute on function private.counts_of to authenticated;
grant execute on function private.found_counts to authenticated;
grant execute on function private.summed_counts to authenticated;
grant execute on function private.exact_counts to authenticated;
grant execute on function private.sampled_counts to authenticated;
grant execute on function private.caller_account to authenticated;
grant execute on function private.count_signals to authenticated;
grant execute on function public.count_signals to authenticated;
grant execute on function private.facets_of to authenticated;
grant execute on function private.signal_facets to authenticated;
grant execute on function public.signal_facets to authenticated;
