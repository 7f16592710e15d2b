-- time_buckets: signals per bucket of any width, with a place for each bucket, also for empty ones.
-- All series of an answer share their buckets; what nobody signalled is 0 signals of no price.
-- Must never break: no value is NaN or infinite, and an answer has 20,000 places at most.

create type private.series as (
  key text,
  keys integer,
  signals bigint [],
  enter_long bigint [],
  exit_long bigint [],
  enter_short bigint [],
  exit_short bigint [],
  confidence_avg double precision [],
  confidence_stddev double precision [],
  confidence_min double precision [],
  confidence_max double precision [],
  price_avg double precision [],
  price_stddev double precision [],
  price_min double precision [],
  price_max double precision []
);

comment on type private.series is
'One key''s signals in buckets, an element for each bucket: 0 or null where there was no signal. key is as
clients see it, null for all signals together; keys tells how many the request has, these or others.';

create function private.series_buckets(request private.series_request)
returns timestamptz[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_first timestamptz := private.bucket_of(request.width, request.from_time);
  v_buckets numeric := ceil(
    extract(epoch from request.to_time - v_first) / extract(epoch from request.width));
  v_keys integer := case request.keyed_by
    when 'all' then 1
    when 'trader' then cardinality(request.trader_nos)
    when 'symbol' then cardinality(request.symbols)
    when 'timeframe' then cardinality(request.timeframes)
  end;
begin
  if request.from_time >= request.to_time then
    return array[]::timestamptz[];
  end if;
  perform private.require_narrow(v_buckets, 11000, 'buckets');
  perform private.require_narrow(
    v_buckets * least(v_keys, request.most_keys), 20000, 'buckets of all series together');
  return array(
    select v_first + place * request.width
    from generate_series(0, v_buckets::integer - 1) as place);
end
$$;

comment on function private.series_buckets is
'When each bucket of a request begins, in order; PT400 for too many. A week has 10,080 minutes.';

create function private.series_key(
  keyed_by text,
  key text
)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case keyed_by
    when 'symbol' then key
    when 'timeframe' then (private.timeframes())[key::smallint]
    when 'trader' then (
      select trader.trader_id::text from private.traders as trader
      where trader.trader_no = key::integer)
  end;
end
$$;

comment on function private.series_key is 'The key of a part as clients see it; null for all.';

create function private.series_in(
  request private.series_request,
  buckets timestamptz[]
)
returns setof private.series
language sql
stable
rows 10
set search_path = ''
as $$
  with part as materialized (select * from private.series_of(request)),
  counted as (
    select part.key, sum(part.signals) as signals from part group by part.key
    union all
    select '', 0 where request.keyed_by = 'all' and not exists (select from part)
  ),
  wanted as materialized (
    select
      counted.key, shown.key as shown_key, (count(*) over ())::integer as keys,
      row_number() over (order by counted.signals desc, shown.key collate "C") as place
    from counted
    cross join lateral private.series_key(request.keyed_by, counted.key) as shown (key)
  ),
  filled as (
    select
      wanted.shown_key, wanted.keys, wanted.place, bucket.place as bucket_place, part.*,
      case when part.signals > 1 then part.signals - 1 end as freedom
    from wanted
    cross join unnest(buckets) with ordinality as bucket (starts, place)
    left join part on part.key = wanted.key and part.bucket = bucket.starts
    where wanted.place <= request.most_keys
  )
  select
    filled.shown_key,
    filled.keys,
    array_agg(coalesce(filled.signals, 0) order by filled.bucket_place),
    array_agg(coalesce(filled.enter_long, 0) order by filled.bucket_place),
    array_agg(coalesce(filled.exit_long, 0) order by filled.bucket_place),
    array_agg(coalesce(filled.enter_short, 0) order by filled.bucket_place),
    array_agg(coalesce(filled.exit_short, 0) order by filled.bucket_place),
    array_agg(filled.confidence_sum / filled.signals order by filled.bucket_place),
    array_agg(
      case when filled.confidence_min = filled.confidence_max then 0 * filled.freedom
        else sqrt(filled.confidence_squares / filled.freedom) end
      order by filled.bucket_place),
    array_agg(filled.confidence_min order by filled.bucket_place),
    array_agg(filled.confidence_max order by filled.bucket_place),
    array_agg(filled.price_sum / filled.signals order by filled.bucket_place),
    array_agg(
      case when filled.price_min = filled.price_max then 0 * filled.freedom
        else sqrt(filled.price_squares / filled.freedom) end
      order by filled.bucket_place),
    array_agg(filled.price_min order by filled.bucket_place),
    array_agg(filled.price_max order by filled.bucket_place)
  from filled
  group by filled.shown_key, filled.keys, filled.place
  order by filled.place
$$;

comment on function private.series_in is
'The series of a request in these buckets: of the keys with the most signals, these first. stddev is
that of a sample: null for one signal, and exactly 0 where all are equal.';

create function private.filled(
  numbers double precision[],
  fill text
)
returns double precision[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_known integer;
begin
  if fill = 'null' then
    return numbers;
  end if;
  for v_place in 1..coalesce(cardinality(numbers), 0) loop
    if numbers[v_place] is null then
      if fill = 'previous' and v_known is not null then
        numbers[v_place] := numbers[v_known];
      end if;
      continue;
    end if;
    if fill = 'linear' then
      for v_gap in coalesce(v_known, v_place) + 1..v_place - 1 loop
        -- A step that divided would be no double any more (22003) becomes 0.
        numbers[v_gap] := numbers[v_known]
          + (numbers[v_place] - numbers[v_known] + 1e-200 - 1e-200)
          * (v_gap - v_known) / (v_place - v_known);
      end loop;
    end if;
    v_known := v_place;
  end loop;
  return numbers;
end
$$;

comment on function private.filled is
'Numbers with their nulls filled: by none (null), by the one before (previous: last observation carried
forward), or on the straight line between the ones beside (linear). Nulls before the first stay, with
linear those after the last, too.';

create function private.require_fill(fill text)
returns void
language sql
stable
set search_path = ''
as $$ select private.require_word('fill', fill, array['null', 'previous', 'linear']) $$;

comment on function private.require_fill is 'PT400 unless there is such a way to fill gaps.';

create function private.shown_series(
  series private.series,
  fill text
)
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  return json_build_object(
    'key', series.key,
    'signals', series.signals,
    'enter_long', series.enter_long,
    'exit_long', series.exit_long,
    'enter_short', series.enter_short,
    'exit_short', series.exit_short,
    'confidence_avg', private.filled(series.confidence_avg, fill),
    'confidence_stddev', private.filled(series.confidence_stddev, fill),
    'confidence_min', private.filled(series.confidence_min, fill),
    'confidence_max', private.filled(series.confidence_max, fill),
    'price_avg', private.filled(series.price_avg, fill),
    'price_stddev', private.filled(series.price_stddev, fill),
    'price_min', private.filled(series.price_min, fill),
    'price_max', private.filled(series.price_max, fill));
end
$$;

comment on function private.shown_series is 'A series as clients see it, its gaps filled.';

create function private.time_buckets(
  keyed_by text,
  width interval,
  fill text,
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
    width, coalesce(keyed_by, 'all'), most_keys);
  v_buckets timestamptz[] := private.series_buckets(v_request);
  v_series private.series[];
begin
  perform private.require_fill(fill);
  v_series := array(select series from private.series_in(v_request, v_buckets) as series);
  return json_build_object(
    'from', v_request.from_time,
    'to', v_request.to_time,
    'buckets', v_buckets,
    'series', array(
      select private.shown_series(series, time_buckets.fill) from unnest(v_series) as series),
    'keys_left_out', greatest(v_series[1].keys - most_keys, 0),
    'last_seq', coalesce(v_request.last_seq, 0));
end
$$;

comment on function private.time_buckets is 'Body of public.time_buckets.';

create function public.time_buckets(
  width interval default null,
  "by" text default null,
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
  select private.time_buckets(
    "by", width, fill, top, traders, symbols, timeframes, actions, min_confidence, max_confidence,
    "from", "to")
$$;

comment on function public.time_buckets is
'The caller''s signals per bucket of a width from 1 minute to 366 days, empty buckets included: counts,
and average, sample deviation, least and greatest of confidence and price. by gives a series each for
the top traders, symbols or timeframes with the most signals. fill says what stands for the confidence
and price of an empty bucket: null, previous (the last observation carried forward) or linear (on the
line between its neighbours), as TimescaleDB''s time_bucket_gapfill with locf and interpolate, and
QuestDB''s SAMPLE BY with FILL. Buckets begin at 2000-01-03 00:00 UTC, or widths from it; the first and
last count only what lies between from (inclusive) and to (exclusive, else the end of the bucket that
now lies in). last_seq is the seq up to which signals count: the account''s own, unless rollups are read
and more than 10,000 signals wait for their job.';

grant execute on function private.series_buckets to authenticated;
grant execute on function private.series_key to authenticated;
grant execute on function private.series_in to authenticated;
grant execute on function private.filled to authenticated;
grant execute on function private.require_fill to authenticated;
grant execute on function private.shown_series to authenticated;
grant execute on function private.time_buckets to authenticated;
grant execute on function public.time_buckets to authenticated;
