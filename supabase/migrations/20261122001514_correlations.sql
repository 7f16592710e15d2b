-- correlations and co_occurrence: what moves together, and what comes first.
-- Correlations are of what was signalled per bucket; co-occurrence is of the signals themselves.
-- Must never break: a correlation with a constant is null, and the pairs of one answer are bounded.

create function private.lagged_correlation(
  leader double precision[],
  follower double precision[],
  lag integer,
  out correlation double precision,
  out observations bigint
)
language sql
immutable
set search_path = ''
as $$
  select
    -- Of equal numbers rounding may leave a deviation, and so a correlation.
    case when min(pair.x) < max(pair.x) and min(pair.y) < max(pair.y)
      -- corr() divides by the root of their product, which must not be 0.
      and least(regr_sxx(pair.y, pair.x), regr_syy(pair.y, pair.x)) > 1e-150
      then corr(pair.y, pair.x) end,
    count(*)
  from unnest(
    leader[1 + greatest(-lag, 0):cardinality(leader) - greatest(lag, 0)],
    follower[1 + greatest(lag, 0):cardinality(follower) - greatest(-lag, 0)]
  ) as pair (x, y)
  where pair.x is not null and pair.y is not null
$$;

comment on function private.lagged_correlation is
'Pearson''s correlation of leader[t] with follower[t + lag], over the places where neither is null.';

create function private.shown_correlations(
  leader private.series,
  follower private.series,
  value text,
  fill text,
  max_lag integer
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_leader double precision[] := private.series_value(leader, value, fill);
  v_follower double precision[] := private.series_value(follower, value, fill);
begin
  return (
    select json_build_object(
      'leader', leader.key,
      'follower', follower.key,
      'correlation', array_agg(found.correlation order by lag),
      'observations', array_agg(found.observations order by lag))
    from generate_series(-max_lag, max_lag) as lag
    cross join lateral private.lagged_correlation(v_leader, v_follower, lag) as found);
end
$$;

comment on function private.shown_correlations is
'The correlations of two series at each lag, as clients see them.';

create function private.correlations(
  keyed_by text,
  width interval,
  fill text,
  value text,
  max_lag integer,
  most_keys integer,
  traders uuid[],
  symbols text[],
  timeframes text[],
  actions text[],
  min_confidence double precision,
  max_confidence double precision,
  from_time timestamptz,
  to_time timestamptz
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_request private.series_request := private.read_series(
    traders, symbols, timeframes, actions, min_confidence, max_confidence, from_time, to_time,
    width, keyed_by, most_keys);
  v_buckets timestamptz[] := private.series_buckets(v_request);
  v_series private.series[];
  v_keys bigint;
begin
  perform private.require_fill(fill);
  perform private.require_value(value);
  perform private.require_whole_number('max_lag', max_lag, 0, 100);
  v_series := array(select series from private.series_in(v_request, v_buckets) as series);
  v_keys := cardinality(v_series);
  perform private.require_narrow(
    v_keys * (v_keys + 1) / 2 * (2 * max_lag + 1) * cardinality(v_buckets), 2000000,
    'buckets to compare, over all pairs and lags');
  return json_build_object(
    'from', v_request.from_time,
    'to', v_request.to_time,
    'keys', array(select series.key from unnest(v_series) as series),
    'lags', array(select generate_series(-max_lag, max_lag)),
    'pairs', array(
      select private.shown_correlations(
        v_series[leader], v_series[follower], correlations.value, correlations.fill,
        correlations.max_lag)
      from generate_series(1, v_keys::integer) as leader
      cross join lateral generate_series(leader, v_keys::integer) as follower
      order by leader, follower),
    'keys_left_out', greatest(v_series[1].keys - most_keys, 0),
    'last_seq', coalesce(v_request.last_seq, 0));
end
$$;

comment on function private.correlations is 'Body of public.correlations.';

create function public.correlations(
  width interval default null,
  "by" text default 'symbol',
  value text default 'signals',
  max_lag integer default 0,
  fill text default 'null',
  top integer default 10,
  traders uuid[] default null,
  symbols text[] default null,
  timeframes text[] default null,
  actions text[] default null,
  min_confidence double precision default null,
  max_confidence double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.correlations(
    "by", width, fill, value, max_lag, top, traders, symbols, timeframes, actions, min_confidence,
    max_confidence, "from", "to")
$$;

comment on function public.correlations is
'How what the top traders, symbols or timeframes signal per bucket moves together: Pearson''s r = sum((x -
mean x) (y - mean y)) / sqrt(sum((x - mean x)^2) sum((y - mean y)^2)) of x = leader[t] and y =
follower[t + lag], for each pair (each with itself, too) and lag from -max_lag to max_lag buckets: the
cross-correlation function (Box, Jenkins, Reinsel and Ljung, Time Series Analysis), but each lag with
the means of what overlaps, as pandas'' leader.corr(follower.shift(-lag)). A peak at a lag above 0 says
that the first comes so many buckets before the second. Buckets without a value on both sides are left
out; null where one side is constant. Buckets, value, by and fill as in rolling_statistics.';

create type private.occurrences as (
  key text,
  keys integer,
  times double precision []
);

comment on type private.occurrences is
'When one key signalled, in microseconds since 1970, in order: whole numbers that a double holds.';

create function private.occurrences_of(request private.series_request)
returns setof private.occurrences
language sql
stable
rows 10
set search_path = ''
as $$
  select
    shown.key,
    (count(*) over ())::integer,
    found.times
  from (
    select
      signal.key,
      array_agg(
        (extract(epoch from signal.generated_at) * 1000000)::double precision
        order by signal.generated_at) as times
    from private.signals_of_series(
      request, tstzrange(request.from_time, request.to_time)) as signal
    group by signal.key
  ) as found
  cross join lateral private.series_key(request.keyed_by, found.key) as shown (key)
  order by cardinality(found.times) desc, shown.key collate "C"
  limit request.most_keys
$$;

comment on function private.occurrences_of is
'The times of the keys with the most signals, these first.';

create function private.chance_of_any(
  events integer,
  chance double precision
)
returns double precision
language plpgsql
immutable
set search_path = ''
as $$
begin
  if events = 0 or chance >= 1 then
    return least(events, 1);
  end if;
  -- Not (1 - chance) ^ events: what of many events is no double any more is an error (22003).
  return 1 - exp(greatest(events * ln(1 - chance), -700));
end
$$;

comment on function private.chance_of_any is
'1 - (1 - chance)^events: how likely any of independent events is.';

create function private.shown_co_occurrence(
  leader private.occurrences,
  follower private.occurrences,
  window_microseconds double precision,
  range_microseconds double precision
)
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select json_build_object(
      'leader', leader.key,
      'follower', follower.key,
      'leader_signals', cardinality(leader.times),
      'follower_signals', cardinality(follower.times),
      'trigger_rate', triggers.rate,
      'precursor_rate', precursors.signals::double precision / cardinality(follower.times),
      'expected_trigger_rate', private.chance_of_any(
        cardinality(follower.times), window_microseconds / range_microseconds),
      'median_delay_seconds', precursors.median_delay / 1000000)
    -- A part of an array is a plain array; that of a variable would be copied for each element.
    from (select leader.times[:] as leading, follower.times[:] as following offset 0) as times
    cross join lateral (
      -- width_bucket finds by bisection how many of an ordered array are not above a number.
      select avg((
        width_bucket(at + window_microseconds, times.following)
        > width_bucket(at - 1, times.following)
      )::integer::double precision) as rate
      from unnest(times.leading) as at
    ) as triggers
    cross join lateral (
      select
        count(*) as signals,
        percentile_cont(0.5) within group (order by since.delay) as median_delay
      from (
        select at - times.leading[width_bucket(at, times.leading)] as delay
        from unnest(times.following) as at
      ) as since
      where since.delay <= window_microseconds
    ) as precursors);
end
$$;

comment on function private.shown_co_occurrence is
'How often the follower signals within a window after the leader, as clients see it.';

create function private.co_occurrence(
  keyed_by text,
  window_size interval,
  most_keys integer,
  traders uuid[],
  symbols text[],
  timeframes text[],
  actions text[],
  min_confidence double precision,
  max_confidence double precision,
  from_time timestamptz,
  to_time timestamptz
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  -- Of a minute: no rollup tells when in an hour a signal was.
  v_request private.series_request := private.read_series(
    traders, symbols, timeframes, actions, min_confidence, max_confidence, from_time, to_time,
    '1 minute', keyed_by, most_keys);
  v_range double precision :=
    extract(epoch from v_request.to_time - v_request.from_time) * 1000000;
  v_occurrences private.occurrences[];
begin
  perform private.require_duration('window', window_size, '1 microsecond', '7 days');
  v_occurrences := array(select each from private.occurrences_of(v_request) as each);
  perform private.require_narrow((
    select sum(cardinality(each.times)) * cardinality(v_occurrences)
    from unnest(v_occurrences) as each), 2000000, 'signals to compare, over all pairs');
  return json_build_object(
    'from', v_request.from_time,
    'to', v_request.to_time,
    'keys', array(select each.key from unnest(v_occurrences) as each),
    'pairs', array(
      select private.shown_co_occurrence(
        v_occurrences[leader], v_occurrences[follower],
        extract(epoch from window_size) * 1000000, v_range)
      from generate_series(1, cardinality(v_occurrences)) as leader
      cross join generate_series(1, cardinality(v_occurrences)) as follower
      where leader <> follower
      order by leader, follower),
    'keys_left_out', greatest(v_occurrences[1].keys - most_keys, 0),
    'last_seq', coalesce(v_request.last_seq, 0));
end
$$;

comment on function private.co_occurrence is 'Body of public.co_occurrence.';

create function public.co_occurrence(
  "window" interval default null,
  "by" text default 'symbol',
  top integer default 10,
  traders uuid[] default null,
  symbols text[] default null,
  timeframes text[] default null,
  actions text[] default null,
  min_confidence double precision default null,
  max_confidence double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.co_occurrence(
    "by", "window", top, traders, symbols, timeframes, actions, min_confidence, max_confidence,
    "from", "to")
$$;

comment on function public.co_occurrence is
'Which of the top traders, symbols or timeframes signal together, and which first, by event coincidence
analysis (Donges, Schleussner, Siegmund and Donner, Eur. Phys. J. Special Topics 225, 2016). For each
ordered pair: trigger_rate, the share of the leader''s signals with a signal of the follower at the same
instant or within "window" after; precursor_rate, the share of the follower''s signals with one of the
leader at the same instant or within "window" before; median_delay_seconds from the latest of these; and
expected_trigger_rate = 1 - (1 - "window" / range)^(follower''s signals), what independent signals at
random times would have. Compare a pair with its reverse to see who leads. "window" is at most 7 days.';

grant execute on function private.lagged_correlation to authenticated;
grant execute on function private.shown_correlations to authenticated;
grant execute on function private.correlations to authenticated;
grant execute on function public.correlations to authenticated;
grant execute on function private.occurrences_of to authenticated;
grant execute on function private.chance_of_any to authenticated;
grant execute on function private.shown_co_occurrence to authenticated;
grant execute on function private.co_occurrence to authenticated;
grant execute on function public.co_occurrence to authenticated;
