-- Series: the caller's signals summed up in buckets of any width, by trader, symbol or timeframe.
-- Whole hours and days come from rollups where there are some, all else from signals, packed or not.
-- Must never break: both ways count the same signals, each once, and what one call reads is bounded.

create type private.series_request as (
  account_no integer,
  tier text,
  last_seq bigint,
  width interval,
  cycle interval,
  keyed_by text,
  most_keys integer,
  trader_nos integer [],
  symbols text [],
  timeframes smallint [],
  actions smallint [],
  min_confidence double precision,
  max_confidence double precision,
  from_time timestamptz,
  to_time timestamptz
);

comment on type private.series_request is
'Which signals of an account to sum up: those of seq up to last_seq, from from_time (inclusive) to
to_time (exclusive). keyed_by is all, trader, symbol or timeframe; cycle is what buckets of equal
place are put together in, null when they are not; filters are null when they do not filter.';

create type private.series_part as (
  bucket timestamptz,
  key text,
  signals bigint,
  enter_long bigint,
  exit_long bigint,
  enter_short bigint,
  exit_short bigint,
  confidence_sum double precision,
  confidence_squares double precision,
  confidence_min double precision,
  confidence_max double precision,
  price_sum double precision,
  price_squares double precision,
  price_min double precision,
  price_max double precision
);

comment on type private.series_part is
'Signals of one bucket and key, summed up as in private.rollups. key is the trader_no, the symbol, the
position of the timeframe, or empty for all.';

create function private.bucket_origin()
returns timestamptz
language sql
immutable
set search_path = ''
as $$ select timestamptz '2000-01-03 00:00:00+00' $$;

comment on function private.bucket_origin is
'A Monday: buckets of any width begin at it, at so many widths after, or before. Days so begin at
midnight UTC, and weeks on Mondays, as those of TimescaleDB''s time_bucket do.';

create function private.bucket_of(
  width interval,
  at timestamptz
)
returns timestamptz
language sql
immutable
set search_path = ''
as $$ select date_bin(bucket_of.width, bucket_of.at, private.bucket_origin()) $$;

comment on function private.bucket_of is 'When the bucket that a time lies in begins.';

create function private.require_duration(
  name text,
  duration interval,
  shortest interval,
  longest interval
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  -- A month has no fixed length. ±infinity is none between the bounds.
  if (duration between shortest and longest
      and date_part('month', duration) = 0 and date_part('year', duration) = 0) is not true then
    perform private.raise_error(
      400, 'invalid_filter',
      format('Cannot sum up: %s must be from %s to %s, and no month or year.',
        name, shortest, longest),
      'Say how long as in 15m, 1h, 1d or 7 days.');
  end if;
end
$$;

comment on function private.require_duration is
'PT400 unless a duration is within its bounds and as long at any time.';

create function private.require_word(
  name text,
  word text,
  allowed text[]
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if (word = any(allowed)) is not true then
    perform private.raise_error(
      400, 'invalid_filter',
      format('Cannot sum up: %s must be one of %s.', name, array_to_string(allowed, ', ')),
      'Use one of these words.');
  end if;
end
$$;

comment on function private.require_word is 'PT400 unless a word is one of those allowed.';

create function private.require_whole_number(
  name text,
  number integer,
  least_number integer,
  most_number integer
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if (number between least_number and most_number) is not true then
    perform private.raise_error(
      400, 'invalid_filter',
      format('Cannot sum up: %s must be from %s to %s.', name, least_number, most_number),
      'Use a number within these bounds.');
  end if;
end
$$;

comment on function private.require_whole_number is 'PT400 unless a number is within its bounds.';

create function private.require_narrow(
  size numeric,
  most bigint,
  what text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if size > most then
    perform private.raise_error(
      400, 'query_too_wide',
      format('Cannot sum up at once: there are more than %s %s.', most, what),
      'Narrow from and to, or ask for fewer traders or symbols, wider buckets or a lower top.');
  end if;
end
$$;

comment on function private.require_narrow is
'PT400 for a question that would take too long, or whose answer would be too large.';

create function private.require_series_filters(
  filter_values integer,
  from_time timestamptz,
  to_time timestamptz
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if filter_values > 100 then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot filter: a filter has more than 100 values.',
      'Use at most 100 values in each filter.');
  end if;
  if (isfinite(from_time)) is not true or not isfinite(to_time) then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot sum up: from must be given, and from and to be finite.',
      'Say from when on; without to, signals are counted until now.');
  end if;
end
$$;

comment on function private.require_series_filters is
'PT400 unless the range is finite and no list of a filter too long.';

create function private.countable_request(request private.series_request)
returns private.series_request
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts;
begin
  if (private.series_pieces(request)).rest
    <> tstzmultirange(tstzrange(request.from_time, request.to_time)) then
    select account.* into v_account
    from private.accounts as account
    where account.account_no = request.account_no;
    request.last_seq := private.countable_seq(v_account);
  end if;
  return request;
end
$$;

comment on function private.countable_request is
'The request, up to the seq that rollups can tell of when some are read. That is last_seq, unless more
than 10,000 signals wait for the job.';

create function private.read_series(
  traders uuid[],
  symbols text[],
  timeframes text[],
  actions text[],
  min_confidence double precision,
  max_confidence double precision,
  from_time timestamptz,
  to_time timestamptz,
  width interval,
  keyed_by text,
  most_keys integer
)
returns private.series_request
language plpgsql
stable
set search_path = ''
as $$
declare
  -- Before the arguments are looked at: who may not ask learns nothing from what is wrong with them.
  v_account_id uuid := private.caller_id('signals:read');
  v_request private.series_request;
begin
  perform private.require_series_filters(
    greatest(cardinality(traders), cardinality(read_series.symbols),
      cardinality(read_series.timeframes), cardinality(read_series.actions)),
    from_time, to_time);
  perform private.require_duration('width', width, '1 minute', '366 days');
  perform private.require_word('by', keyed_by, array['all', 'trader', 'symbol', 'timeframe']);
  perform private.require_whole_number('top', most_keys, 1, 50);
  select account.account_no, account.tier, account.last_seq
  into v_request.account_no, v_request.tier, v_request.last_seq
  from private.accounts as account
  where account.account_id = v_account_id;
  v_request.trader_nos := case when traders is not null then array(
    select trader.trader_no from private.traders as trader
    where trader.trader_id = any(read_series.traders)) end;
  v_request.symbols := read_series.symbols;
  v_request.timeframes := private.positions_of(read_series.timeframes, private.timeframes());
  v_request.actions := private.positions_of(read_series.actions, private.actions());
  v_request.min_confidence := read_series.min_confidence;
  v_request.max_confidence := read_series.max_confidence;
  v_request.width := width;
  v_request.keyed_by := keyed_by;
  v_request.most_keys := most_keys;
  v_request.from_time := from_time;
  v_request.to_time := greatest(
    from_time, coalesce(to_time, private.bucket_of(width, private.clock()) + width));
  return private.countable_request(v_request);
end
$$;

comment on function private.read_series is
'The arguments of a function of series as a request, for a caller who may read; PT400 for one that is
not allowed. Without to, the bucket that now lies in is the last.';

grant execute on function private.bucket_origin to authenticated;
grant execute on function private.bucket_of to authenticated;
grant execute on function private.require_duration to authenticated;
grant execute on function private.require_word to authenticated;
grant execute on function private.require_whole_number to authenticated;
grant execute on function private.require_narrow to authenticated;
grant execute on function private.require_series_filters to authenticated;
grant execute on function private.countable_request to authenticated;
grant execute on function private.read_series to authenticated;
