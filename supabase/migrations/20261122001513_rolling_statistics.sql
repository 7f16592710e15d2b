-- rolling_statistics: moving averages and the z-score of what was signalled per bucket.
-- A series is one number per bucket; a window is the last so many buckets, this one included.
-- Must never break: a figure of too few values, or of equal ones, is null where it is not defined.

create function private.require_value(value text)
returns void
language sql
stable
set search_path = ''
as $$
  select private.require_word(
    'value', require_value.value, array['signals', 'net_entries', 'confidence', 'price'])
$$;

comment on function private.require_value is 'PT400 unless a series has such a value.';

create function private.series_value(
  series private.series,
  value text,
  fill text
)
returns double precision[]
language plpgsql
stable
set search_path = ''
as $$
begin
  return case value
    when 'signals' then series.signals::double precision[]
    when 'net_entries' then array(
      select (entered.long - entered.short)::double precision
      from unnest(series.enter_long, series.enter_short)
        with ordinality as entered (long, short, place)
      order by entered.place)
    when 'confidence' then private.filled(series.confidence_avg, fill)
    when 'price' then private.filled(series.price_avg, fill)
  end;
end
$$;

comment on function private.series_value is
'A series as one number per bucket: how many signals, long entries less short ones, or the average
confidence or price.';

create function private.exponential_averages(
  numbers double precision[],
  span integer
)
returns double precision[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_decay double precision := 1 - 2.0 / (span + 1);
  v_mean double precision;
  v_weight double precision := 0;
begin
  for v_place in 1..coalesce(cardinality(numbers), 0) loop
    -- While nothing is known the weight nearly goes, and the mean stays; a sum would go with it.
    v_weight := case when v_weight > 1e-300 then v_weight * v_decay else 0 end;
    if numbers[v_place] is not null then
      v_weight := v_weight + 1;
      v_mean := coalesce(v_mean + (numbers[v_place] - v_mean) / v_weight, numbers[v_place]);
      -- After many zeros it is 0: divided further, it would be no double (22003).
      v_mean := v_mean + 1e-200 - 1e-200;
    end if;
    numbers[v_place] := v_mean;
  end loop;
  return numbers;
end
$$;

comment on function private.exponential_averages is
'The exponentially weighted average up to each place: sum of d^i × x[t - i] / sum of d^i over the values
that are not null, with d = 1 - 2 / (span + 1). As pandas'' ewm(span, adjust=True, ignore_na=False).';

create type private.rolling as (
  mean double precision [],
  exponential_mean double precision [],
  weighted_mean double precision [],
  stddev double precision [],
  z_score double precision []
);

comment on type private.rolling is 'Figures of a window, an element for each bucket that it ends with.';

create function private.rolling_of(
  numbers double precision[],
  window_size integer,
  min_periods integer
)
returns private.rolling
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_rolling private.rolling;
begin
  select
    array_agg(case when enough then mean end order by place),
    array_agg(case when seen >= min_periods then exponential_mean end order by place),
    array_agg(
      case when enough then
        -- Weights are 1 for the oldest place of the window, to window_size for this one.
        (place_sum - (place - window_size) * sum) / (places - (place - window_size) * present)
      end order by place),
    array_agg(case when enough then stddev end order by place),
    array_agg(case when enough then (number - mean) / nullif(stddev, 0) end order by place)
  into
    v_rolling.mean, v_rolling.exponential_mean, v_rolling.weighted_mean, v_rolling.stddev,
    v_rolling.z_score
  from (
    select
      each.place, each.number, each.exponential_mean,
      count(each.number) over recent >= rolling_of.min_periods as enough,
      count(each.number) over (order by each.place) as seen,
      count(each.number) over recent as present,
      sum(each.number) over recent as sum,
      sum(each.place * each.number) over recent as place_sum,
      sum(each.place) filter (where each.number is not null) over recent as places,
      avg(each.number) over recent as mean,
      -- Of equal numbers rounding may leave a deviation.
      case when min(each.number) over recent < max(each.number) over recent
        then stddev_samp(each.number) over recent
        else 0 * nullif(count(each.number) over recent - 1, 0) end as stddev
    from unnest(numbers, private.exponential_averages(numbers, window_size))
      with ordinality as each (number, exponential_mean, place)
    window recent as (
      order by each.place rows between window_size - 1 preceding and current row)
  ) as at_place;
  return v_rolling;
end
$$;

comment on function private.rolling_of is
'Of the last window_size numbers up to each place, those that are not null, when they are min_periods at
least: mean, linearly weighted mean, sample deviation, and how many deviations the number lies above the
mean. The exponential mean is of all numbers so far.';

create function private.shown_rolling(
  key text,
  numbers double precision[],
  window_size integer,
  min_periods integer
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_rolling private.rolling := private.rolling_of(numbers, window_size, min_periods);
begin
  return json_build_object(
    'key', key,
    'value', numbers,
    'mean', v_rolling.mean,
    'exponential_mean', v_rolling.exponential_mean,
    'weighted_mean', v_rolling.weighted_mean,
    'stddev', v_rolling.stddev,
    'z_score', v_rolling.z_score);
end
$$;

comment on function private.shown_rolling is 'A series and its rolling figures as clients see them.';

create function private.rolling_statistics(
  keyed_by text,
  width interval,
  fill text,
  value text,
  window_size integer,
  min_periods integer,
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
  perform private.require_value(value);
  perform private.require_whole_number('window', window_size, 2, 500);
  perform private.require_whole_number(
    'min_periods', coalesce(min_periods, window_size), 1, window_size);
  v_series := array(select series from private.series_in(v_request, v_buckets) as series);
  return json_build_object(
    'from', v_request.from_time,
    'to', v_request.to_time,
    'buckets', v_buckets,
    'series', array(
      select private.shown_rolling(
        series.key,
        private.series_value(series, rolling_statistics.value, rolling_statistics.fill),
        window_size, coalesce(rolling_statistics.min_periods, window_size))
      from unnest(v_series) as series),
    'keys_left_out', greatest(v_series[1].keys - most_keys, 0),
    'last_seq', coalesce(v_request.last_seq, 0));
end
$$;

comment on function private.rolling_statistics is 'Body of public.rolling_statistics.';

create function public.rolling_statistics(
  width interval default null,
  value text default 'signals',
  "window" integer default 20,
  min_periods integer default null,
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
  select private.rolling_statistics(
    "by", width, fill, value, "window", min_periods, top, traders, symbols, timeframes, actions,
    min_confidence, max_confidence, "from", "to")
$$;

comment on function public.rolling_statistics is
'Moving figures of the caller''s signals per bucket: of their number (signals), of long entries less
short ones (net_entries), or of their average confidence or price. Over the last "window" buckets, where
x is not null in min_periods of them (all, unless told otherwise): mean = sum(x) / n (simple moving
average), weighted_mean = sum(w x) / sum(w) with w from 1 (oldest bucket) to "window" (this bucket;
linearly weighted moving average), stddev = sqrt(sum((x - mean)^2) / (n - 1)), z_score = (x - mean) /
stddev, null when the values are all equal. exponential_mean is of all buckets since from: sum(d^i x) /
sum(d^i), d = 1 - 2 / ("window" + 1), i buckets ago. Definitions as in pandas: rolling("window",
min_periods), ewm(span="window", min_periods=min_periods). Buckets, by and fill as in time_buckets.';

grant execute on function private.require_value to authenticated;
grant execute on function private.series_value to authenticated;
grant execute on function private.exponential_averages to authenticated;
grant execute on function private.rolling_of to authenticated;
grant execute on function private.shown_rolling to authenticated;
grant execute on function private.rolling_statistics to authenticated;
grant execute on function public.rolling_statistics to authenticated;
