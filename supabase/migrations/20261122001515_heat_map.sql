-- heat_map: when in the day or in the week what is signalled, an hour a cell.
-- Hours are those of UTC, which has no daylight saving: every day has 24.
-- Must never break: the cells of a key add up to its signals.

create function private.heat_map(
  cycle text,
  keyed_by text,
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
    '1 hour', keyed_by, most_keys);
  v_hours integer := case cycle when 'day' then 24 else 168 end;
  v_series private.series[];
begin
  perform private.require_word('cycle', cycle, array['day', 'week']);
  v_request.cycle := make_interval(hours => v_hours);
  v_series := array(
    select series
    from private.series_in(v_request, array(
      select private.bucket_origin() + make_interval(hours => hour)
      from generate_series(0, v_hours - 1) as hour)) as series);
  return json_build_object(
    'from', v_request.from_time,
    'to', v_request.to_time,
    'hours', array(select generate_series(0, v_hours - 1)),
    'series', array(select private.shown_series(series, 'null') from unnest(v_series) as series),
    'keys_left_out', greatest(v_series[1].keys - most_keys, 0),
    'last_seq', coalesce(v_request.last_seq, 0));
end
$$;

comment on function private.heat_map is 'Body of public.heat_map.';

create function public.heat_map(
  cycle text default 'day',
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
  select private.heat_map(
    cycle, "by", top, traders, symbols, timeframes, actions, min_confidence, max_confidence,
    "from", "to")
$$;

comment on function public.heat_map is
'In which hours of the day (UTC) or of the week (168, from Monday 00:00) the top traders, symbols or
timeframes signal, as a row each: an element of every list of a series belongs to one hour, over all days
from from (inclusive) to to (exclusive, else the end of the hour that now is). The figures are those of
time_buckets.';

grant execute on function private.heat_map to authenticated;
grant execute on function public.heat_map to authenticated;
