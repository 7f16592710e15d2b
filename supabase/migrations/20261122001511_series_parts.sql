-- Parts of series: signals, and rollups of whole hours and days, summed up by bucket and key.
-- A range is cut so that each part of it is read from the coarsest that tells the same.
-- Must never break: every signal of the range is in one piece, up to the same seq in each.

create function private.whole_buckets(
  request private.series_request,
  resolution text
)
returns tstzmultirange
language plpgsql
stable
set search_path = ''
as $$
declare
  v_width interval := private.bucket_width(resolution);
  v_from timestamptz := greatest(
    request.from_time, private.kept_since(resolution, request.tier), timestamptz 'epoch');
  v_first timestamptz := private.bucket_of(v_width, v_from - interval '1 microsecond') + v_width;
  v_end timestamptz := private.bucket_of(v_width, request.to_time);
begin
  -- A rollup tells of all its signals together.
  if num_nonnulls(request.actions, request.min_confidence, request.max_confidence) > 0
    or extract(epoch from request.width) % extract(epoch from v_width) <> 0
    or v_first >= v_end then
    return tstzmultirange();
  end if;
  return tstzmultirange(tstzrange(v_first, v_end));
end
$$;

comment on function private.whole_buckets is
'The part of a request''s range whose rollups of a resolution say the same as its signals: whole buckets
that are kept, of which each lies in one bucket of the request.';

create function private.series_pieces(
  request private.series_request,
  out days tstzmultirange,
  out hours tstzmultirange,
  out rest tstzmultirange
)
language plpgsql
stable
set search_path = ''
as $$
begin
  days := private.whole_buckets(request, '1d');
  hours := private.whole_buckets(request, '1h') - days;
  rest := tstzmultirange(tstzrange(request.from_time, request.to_time)) - days - hours;
end
$$;

comment on function private.series_pieces is
'A request''s range, cut into what rollups of days tell, what those of hours tell, and the rest.';

create function private.require_readable_signals(
  request private.series_request,
  piece tstzrange
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_most constant integer := 1000000;
  v_signals bigint := (
    select count(*)
    from (
      select from private.signals as signal
      where signal.account_no = request.account_no
        and signal.generated_at >= lower(piece) and signal.generated_at < upper(piece)
      limit v_most + 1
    ) as hot);
begin
  v_signals := v_signals + coalesce((
    select sum(packed.signals)
    from (
      select segment.signals
      from private.segments as segment
      where segment.account_no = request.account_no
        and segment.last_generated_at >= lower(piece)
        and segment.first_generated_at < upper(piece)
        -- A segment lies in one month: this leaves out the partitions of the months before.
        and segment.first_generated_at >= date_trunc('month', lower(piece), 'utc')
        and (segment.trader_nos && request.trader_nos) is not false
        and (segment.symbols && request.symbols) is not false
        and (segment.timeframes && request.timeframes) is not false
      limit v_most + 1
    ) as packed), 0);
  perform private.require_narrow(v_signals, v_most, 'signals to read one by one');
end
$$;

comment on function private.require_readable_signals is
'PT400 when more than a million signals of a piece would have to be looked at: about as many as one
call can in half of its time.';

create function private.signals_of_series(
  request private.series_request,
  piece tstzrange
)
returns table (
  generated_at timestamptz,
  key text,
  action smallint,
  confidence double precision,
  price double precision
)
language plpgsql
stable
rows 100000
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
begin
  perform private.require_readable_signals(request, piece);
  return query
    select
      signal.generated_at,
      case request.keyed_by
        when 'symbol' then signal.symbol when 'trader' then signal.trader_no::text
        when 'timeframe' then signal.timeframe::text else '' end,
      signal.action, signal.confidence, signal.price
    from (
      select
        hot.generated_at, hot.seq, hot.trader_no, hot.timeframe, hot.action, hot.symbol,
        hot.confidence, hot.price
      from private.signals as hot
      where hot.account_no = request.account_no
        and hot.generated_at >= lower(piece) and hot.generated_at < upper(piece)
      union all
      select
        value.generated_at, value.seq, value.trader_no, value.timeframe, value.action,
        part.symbols[value.symbol_position], value.confidence, value.price
      from private.segments as segment
      -- Unpacked once, not for each signal.
      cross join lateral (select segment.symbols[:] as symbols offset 0) as part
      cross join lateral (
        select
          unnest(segment.generated_at_values) as generated_at,
          unnest(segment.seq_offsets) + segment.first_seq - 1
            + generate_series(1, segment.signals) as seq,
          unnest(segment.trader_no_values) as trader_no,
          unnest(segment.timeframe_values) as timeframe,
          unnest(segment.action_values) as action,
          unnest(segment.symbol_positions) as symbol_position,
          unnest(segment.confidence_values) as confidence,
          unnest(segment.price_values) as price
      ) as value
      where segment.account_no = request.account_no
        and segment.last_generated_at >= lower(piece)
        and segment.first_generated_at < upper(piece)
        and segment.first_generated_at >= date_trunc('month', lower(piece), 'utc')
        and (segment.trader_nos && request.trader_nos) is not false
        and (segment.symbols && request.symbols) is not false
        and (segment.timeframes && request.timeframes) is not false
        and value.generated_at >= lower(piece) and value.generated_at < upper(piece)
    ) as signal
    where signal.seq <= request.last_seq
      and (signal.trader_no = any(request.trader_nos)) is not false
      and (signal.symbol = any(request.symbols)) is not false
      and (signal.timeframe = any(request.timeframes)) is not false
      and (signal.action = any(request.actions)) is not false
      and (signal.confidence >= request.min_confidence) is not false
      and (signal.confidence <= request.max_confidence) is not false;
end
$$;

comment on function private.signals_of_series is
'The signals of a request that lie in a piece of its range, packed or not, in no order.';

create function private.parts_of_signals(
  request private.series_request,
  piece tstzrange
)
returns setof private.series_part
language sql
stable
rows 1000
set search_path = ''
as $$
  select
    date_bin(request.width, signal.generated_at, origin.at),
    signal.key,
    count(*),
    count(*) filter (where signal.action = 1),
    count(*) filter (where signal.action = 2),
    count(*) filter (where signal.action = 3),
    count(*) filter (where signal.action = 4),
    -- As in private.rollups_of: what is much closer to 0 is 0.
    sum(signal.confidence) + 1e-100 - 1e-100,
    regr_sxx(signal.confidence, signal.confidence) + 1e-200 - 1e-200,
    min(signal.confidence),
    max(signal.confidence),
    sum(signal.price) + 1e-100 - 1e-100,
    regr_sxx(signal.price, signal.price) + 1e-200 - 1e-200,
    min(signal.price),
    max(signal.price)
  from private.signals_of_series(request, piece) as signal
  cross join private.bucket_origin() as origin (at)
  group by 1, 2
$$;

comment on function private.parts_of_signals is
'The signals of a piece, summed up by bucket and key.';

create function private.require_readable_rollups(
  request private.series_request,
  resolution text,
  piece tstzrange
)
returns void
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_most constant integer := 300000;
begin
  perform private.require_narrow((
    select count(*)
    from (
      select from private.rollups as rollup
      where rollup.account_no = request.account_no
        and rollup.resolution = require_readable_rollups.resolution
        and rollup.bucket >= lower(piece) and rollup.bucket < upper(piece)
        and (rollup.trader_no = any(request.trader_nos)) is not false
        and (rollup.symbol = any(request.symbols)) is not false
        and (rollup.timeframe = any(request.timeframes)) is not false
      limit v_most + 1
    ) as stored), v_most, 'rollups to read');
end
$$;

comment on function private.require_readable_rollups is
'PT400 when more than 300,000 rollups of a piece would have to be summed up.';

create function private.parts_of_rollups(
  request private.series_request,
  account private.accounts,
  resolution text,
  pieces tstzmultirange
)
returns setof private.series_part
language plpgsql
stable
rows 10000
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_origin timestamptz := private.bucket_origin();
  v_live private.rollups[] := private.live_rollups(account, resolution);
  v_piece tstzrange;
begin
  foreach v_piece in array array(select unnest(pieces)) loop
    perform private.require_readable_rollups(request, resolution, v_piece);
    return query
      select
        date_bin(request.width, rollup.bucket, v_origin),
        case request.keyed_by
          when 'symbol' then rollup.symbol when 'trader' then rollup.trader_no::text
          when 'timeframe' then rollup.timeframe::text else '' end,
        (rollup.enter_long + rollup.exit_long + rollup.enter_short + rollup.exit_short)::bigint,
        rollup.enter_long::bigint, rollup.exit_long::bigint, rollup.enter_short::bigint,
        rollup.exit_short::bigint, rollup.confidence_sum, rollup.confidence_squares,
        rollup.confidence_min, rollup.confidence_max, rollup.price_sum, rollup.price_squares,
        rollup.price_min, rollup.price_max
      from (
        select stored.* from private.rollups as stored
        union all
        select live.* from unnest(v_live) as live
      ) as rollup
      where rollup.account_no = request.account_no
        and rollup.resolution = parts_of_rollups.resolution
        and rollup.bucket >= lower(v_piece) and rollup.bucket < upper(v_piece)
        and (rollup.trader_no = any(request.trader_nos)) is not false
        and (rollup.symbol = any(request.symbols)) is not false
        and (rollup.timeframe = any(request.timeframes)) is not false;
  end loop;
end
$$;

comment on function private.parts_of_rollups is
'The rollups of whole hours or days, those of signals that are not rolled up yet among them.';

create function private.series_parts(request private.series_request)
returns setof private.series_part
language plpgsql
stable
rows 10000
set search_path = ''
as $$
declare
  v_pieces record := private.series_pieces(request);
  v_account private.accounts;
  v_piece tstzrange;
begin
  select account.* into v_account
  from private.accounts as account
  where account.account_no = request.account_no;
  v_account.last_seq := request.last_seq;
  if v_pieces.days <> '{}' then
    return query select * from private.parts_of_rollups(request, v_account, '1d', v_pieces.days);
  end if;
  if v_pieces.hours <> '{}' then
    return query select * from private.parts_of_rollups(request, v_account, '1h', v_pieces.hours);
  end if;
  foreach v_piece in array array(select unnest(v_pieces.rest)) loop
    return query select * from private.parts_of_signals(request, v_piece);
  end loop;
end
$$;

comment on function private.series_parts is
'All signals of a request in parts, of which several may be of one bucket and key.';

create function private.series_of(request private.series_request)
returns setof private.series_part
language sql
stable
rows 1000
set search_path = ''
as $$
  with part as materialized (
    select
      case when request.cycle is null then each.bucket
        else origin.at + (each.bucket - date_bin(request.cycle, each.bucket, origin.at))
      end as place,
      each.*
    from private.series_parts(request) as each
    cross join private.bucket_origin() as origin (at)
  ),
  mean as (
    select
      part.place, part.key,
      sum(part.confidence_sum) / sum(part.signals) as confidence,
      sum(part.price_sum) / sum(part.signals) as price
    from part
    group by part.place, part.key
  )
  select
    part.place, part.key,
    sum(part.signals)::bigint,
    sum(part.enter_long)::bigint,
    sum(part.exit_long)::bigint,
    sum(part.enter_short)::bigint,
    sum(part.exit_short)::bigint,
    sum(part.confidence_sum),
    -- The mean of a part lies apart from that of all: that too is distance from it.
    sum(part.confidence_squares
      + part.signals * (part.confidence_sum / part.signals - mean.confidence) ^ 2),
    min(part.confidence_min),
    max(part.confidence_max),
    sum(part.price_sum),
    sum(part.price_squares + part.signals * (part.price_sum / part.signals - mean.price) ^ 2),
    min(part.price_min),
    max(part.price_max)
  from part
  inner join mean on mean.place = part.place and mean.key = part.key
  group by part.place, part.key
$$;

comment on function private.series_of is
'The signals of a request summed up: one row for each bucket and key with any, in no order; with a
cycle, for each bucket of the cycle that begins at private.bucket_origin(). Squares of
parts are put together as Chan, Golub and LeVeque do (Algorithms for computing the sample variance,
The American Statistician 37, 1983).';

grant execute on function private.whole_buckets to authenticated;
grant execute on function private.series_pieces to authenticated;
grant execute on function private.require_readable_signals to authenticated;
grant execute on function private.signals_of_series to authenticated;
grant execute on function private.parts_of_signals to authenticated;
grant execute on function private.require_readable_rollups to authenticated;
grant execute on function private.parts_of_rollups to authenticated;
grant execute on function private.series_parts to authenticated;
grant execute on function private.series_of to authenticated;
