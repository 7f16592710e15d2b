-- What a query asks for: the filters that all reads take, the order of a page, and where it starts.
-- Arguments become a value of private.signal_query here, and nowhere else; the search goes by that alone.
-- Must never break: what is refused is refused here, before anything is read; and a cursor works only for
-- the order and the filters that it was returned for.

create type private.signal_query as (
  sort text,
  trader_nos integer [],
  symbols text [],
  first_symbol text,
  last_symbol text,
  timeframes smallint [],
  actions smallint [],
  statuses text [],
  tags jsonb [],
  min_confidence double precision,
  max_confidence double precision,
  min_price double precision,
  max_price double precision,
  from_time timestamptz,
  to_time timestamptz,
  after_seq bigint,
  until_seq bigint,
  digest bigint,
  start_key text,
  start_time timestamptz,
  start_seq bigint,
  row_limit integer
);

comment on type private.signal_query is
'Which signals to find, in which order. Lists, symbols, confidences and prices are null when they do not
filter, and "(x = any(list)) is not false" is how they are asked; the limits of time and seq are never
null: from_time and until_seq are inclusive, to_time and after_seq exclusive. A prefix is the symbols from
first_symbol to last_symbol. digest tells these filters from others. The page starts behind a signal of
start_time and start_seq (and start_key, in an order by confidence or symbol); an order by seq starts at
after_seq or until_seq instead. row_limit is how many signals are wanted.';

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

create function private.sorts()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    'newest', 'oldest', 'seq', '-seq', 'confidence', '-confidence', 'symbol', '-symbol'
  ]
$$;

comment on function private.sorts is
'The orders of signals: by time, by seq, by confidence and by symbol, either way. Of equal confidence or
symbol the newest comes first, and of equal time the highest seq (for oldest, the lowest).';

create function private.require_values(
  filter_values integer,
  symbol_prefix text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if require_values.filter_values > 100 then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot filter: a filter has more than 100 values.',
      'Use at most 100 values in each filter.');
  end if;
  if require_values.symbol_prefix !~ '^[A-Za-z0-9._/:=@#!&^+-]{1,32}$' then
    perform private.raise_error(
      400, 'invalid_filter',
      'Cannot filter: symbol_prefix must be 1 to 32 of the letters that a symbol may have.',
      'Use letters, digits and . _ / : = @ # ! & ^ + - only.');
  end if;
end
$$;

comment on function private.require_values is
'PT400 unless the number of values of each filter, and the prefix, are allowed.';

create function private.require_page_size(page_size integer)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if require_page_size.page_size not between 1 and 1000 then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot make the page: page_size must be from 1 to 1000.',
      'Ask for at most 1000 signals and follow next_cursor.');
  end if;
end
$$;

comment on function private.require_page_size is 'PT400 unless a page may have this size.';

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

create function private.known_time(
  at timestamptz,
  otherwise timestamptz
)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case
    when at < '0001-01-01 00:00:00+00' then '-infinity'
    when at >= '9999-01-01 00:00:00+00' then 'infinity'
    else coalesce(at, otherwise)
  end;
end
$$;

comment on function private.known_time is
'A limit of time, or another for null. What lies so far off that no calendar goes a month beyond is
infinitely far.';

create function private.filter_symbols(
  query private.signal_query,
  symbols text[],
  symbol_prefix text
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
begin
  if filter_symbols.symbols is not null then
    query.symbols := array(
      select distinct symbol
      from unnest(filter_symbols.symbols) as symbol
      where starts_with(symbol, coalesce(filter_symbols.symbol_prefix, ''))
      order by symbol);
  elsif filter_symbols.symbol_prefix is not null then
    query.first_symbol := filter_symbols.symbol_prefix;
    -- Above all the letters that a symbol may have.
    query.last_symbol := filter_symbols.symbol_prefix || '~';
  end if;
  return filter_symbols.query;
end
$$;

comment on function private.filter_symbols is
'The query for these symbols and this prefix: a list, or else the first and last of a prefix.';

create function private.read_filter(
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
  from_time timestamptz default null,
  to_time timestamptz default null,
  after_seq bigint default null,
  until_seq bigint default null
)
returns private.signal_query
language plpgsql
stable
set search_path = ''
as $$
declare
  v_query private.signal_query;
begin
  -- Before the arguments are looked at: who may not ask learns nothing from what is wrong with them.
  perform private.caller_id('signals:read');
  perform private.require_values(
    greatest(
      cardinality(read_filter.traders), cardinality(read_filter.symbols),
      cardinality(read_filter.timeframes), cardinality(read_filter.actions),
      cardinality(read_filter.statuses), cardinality(read_filter.tags)),
    read_filter.symbol_prefix);
  v_query.from_time := private.known_time(read_filter.from_time, '-infinity');
  v_query.to_time := private.known_time(read_filter.to_time, 'infinity');
  -- Each list in one order, and without what is said twice: what asks for the same has the same digest.
  v_query := private.filter_symbols(v_query, read_filter.symbols, read_filter.symbol_prefix);
  if read_filter.traders is not null then
    v_query.trader_nos := array(
      select trader.trader_no from private.traders as trader
      where trader.trader_id = any(read_filter.traders)
      order by trader.trader_no);
  end if;
  v_query.timeframes := private.positions_of(read_filter.timeframes, private.timeframes());
  v_query.actions := private.positions_of(read_filter.actions, private.actions());
  if read_filter.statuses is not null and not read_filter.statuses @> private.statuses() then
    v_query.statuses := array(
      select status from unnest(private.statuses()) as status
      where status = any(read_filter.statuses));
    -- A status is not looked for by index: that none is asked for must be known before the search.
    if v_query.statuses = '{}' then
      v_query.to_time := '-infinity';
    end if;
  end if;
  if read_filter.tags is not null then
    v_query.tags := array(
      select distinct jsonb_build_object('tags', jsonb_build_array(tag)) as one
      from unnest(read_filter.tags) as tag
      where tag is not null
      order by one);
  end if;
  v_query.min_confidence := read_filter.min_confidence;
  v_query.max_confidence := read_filter.max_confidence;
  v_query.min_price := read_filter.min_price;
  v_query.max_price := read_filter.max_price;
  v_query.after_seq := greatest(read_filter.after_seq, 0);
  v_query.until_seq := coalesce(read_filter.until_seq, 9223372036854775807);
  v_query.digest := hashtextextended(encode(record_send(v_query), 'hex'), 0);
  return private.sorted_by(v_query, 'newest');
end
$$;

comment on function private.read_filter is
'The filters that all reads of signals take, as a query for the newest, for a caller who may read; PT400
for one that is not allowed. The caller says how many it wants: row_limit is 0.';

create function private.sorted_by(
  query private.signal_query,
  sort text
)
returns private.signal_query
language plpgsql
immutable
set search_path = ''
as $$
begin
  query.sort := sorted_by.sort;
  query.start_time := 'infinity';
  query.start_seq := 9223372036854775807;
  if query.sort = 'oldest' then
    query.start_time := '-infinity';
    query.start_seq := 0;
  end if;
  query.row_limit := coalesce(query.row_limit, 0);
  return sorted_by.query;
end
$$;

comment on function private.sorted_by is 'The query in another order, from its start.';

create function private.started_behind(
  query private.signal_query,
  start_key text,
  start_time timestamptz,
  start_seq bigint
)
returns private.signal_query
language plpgsql
immutable
set search_path = ''
as $$
begin
  case query.sort
    when 'seq' then
      query.after_seq := greatest(query.after_seq, started_behind.start_seq);
    when '-seq' then
      query.until_seq := least(query.until_seq, started_behind.start_seq - 1);
    else
      query.start_key := started_behind.start_key;
      query.start_time := started_behind.start_time;
      query.start_seq := started_behind.start_seq;
  end case;
  return started_behind.query;
end
$$;

comment on function private.started_behind is
'The rest of the query behind a signal of this time, seq and, where the order goes by it, confidence or
symbol.';

create function private.sort_key(
  sort text,
  signal private.signals
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case ltrim(sort_key.sort, '-')
    when 'confidence' then signal.confidence::text
    when 'symbol' then signal.symbol
  end;
end
$$;

comment on function private.sort_key is
'What an order goes by before time, if it goes by confidence or symbol.';

create function private.sealed_cursor(
  words text,
  digest bigint
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return private.to_base64url(
    sealed_cursor.words || ' '
    || hashtextextended(sealed_cursor.words, sealed_cursor.digest));
end
$$;

comment on function private.sealed_cursor is
'A cursor that says this, with a hash of it and of the filters: a changed one does not fit. It is no
secret that keeps accounts apart, but row-level security.';

create function private.encode_cursor(
  query private.signal_query,
  signal private.signals
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return private.sealed_cursor(
    concat_ws(
      ' ', query.sort, (extract(epoch from signal.generated_at) * 1000000)::bigint, signal.seq,
      private.sort_key(query.sort, signal)),
    query.digest);
end
$$;

comment on function private.encode_cursor is
'The opaque cursor behind a signal: the order, generated_at in microseconds, seq and what else the order
goes by.';

create function private.decode_cursor(
  query private.signal_query,
  cursor text
)
returns private.signal_query
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_words text := substring(
    private.from_base64url(decode_cursor.cursor), '^(.{1,100}) -?[0-9]{1,19}$');
  v_parts text[] := regexp_match(
    v_words, '^([a-z-]{1,11}) ([0-9]{1,16}) ([0-9]{1,18})(?: ([!-~]{1,32}))?$');
  v_is_by_confidence boolean := query.sort in ('confidence', '-confidence');
  v_has_key boolean := v_is_by_confidence or query.sort in ('symbol', '-symbol');
begin
  if (private.sealed_cursor(v_words, query.digest) = decode_cursor.cursor
    and v_parts[1] = query.sort
    and (v_parts[4] is not null) = v_has_key
    and (not v_is_by_confidence or pg_input_is_valid(v_parts[4], 'double precision'))) is not true
  then
    perform private.raise_error(
      400, 'invalid_cursor', 'Cannot continue: the cursor is not one that this query returned.',
      'Start again without a cursor, and keep the sort and the filters while paging.');
  end if;
  return private.started_behind(
    query, v_parts[4], timestamptz 'epoch' + v_parts[2]::bigint * interval '1 microsecond',
    v_parts[3]::bigint);
end
$$;

comment on function private.decode_cursor is
'The rest of the query behind a cursor; PT400 for a cursor that was changed, or belongs to another order
or other filters.';

create function private.read_page(
  query private.signal_query,
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
  v_page_size integer := coalesce(read_page.page_size, 100);
  v_query private.signal_query := private.sorted_by(query, coalesce(read_page.sort, 'newest'));
begin
  if v_query.sort <> all(private.sorts()) then
    perform private.raise_error(
      400, 'invalid_filter',
      'Cannot sort: sort must be newest, oldest, seq, -seq, confidence, -confidence, symbol or -symbol.',
      'Use one of these.');
  end if;
  perform private.require_page_size(v_page_size);
  if read_page.cursor is not null then
    v_query := private.decode_cursor(v_query, read_page.cursor);
  end if;
  v_query.row_limit := v_page_size + 1;
  return v_query;
end
$$;

comment on function private.read_page is
'The query for a page in this order (newest first for null), from its start or behind a cursor, with one
signal more than the page has: it tells that there is a next one. PT400 for what is not allowed.';

grant execute on function private.to_base64url to authenticated;
grant execute on function private.from_base64url to authenticated;
grant execute on function private.sorts to authenticated;
grant execute on function private.require_values to authenticated;
grant execute on function private.require_page_size to authenticated;
grant execute on function private.positions_of to authenticated;
grant execute on function private.known_time to authenticated;
grant execute on function private.filter_symbols to authenticated;
grant execute on function private.read_filter to authenticated;
grant execute on function private.sorted_by to authenticated;
grant execute on function private.started_behind to authenticated;
grant execute on function private.sort_key to authenticated;
grant execute on function private.sealed_cursor to authenticated;
grant execute on function private.encode_cursor to authenticated;
grant execute on function private.decode_cursor to authenticated;
grant execute on function private.read_page to authenticated;
