-- query_signals: pages of the caller's signals, newest first or by seq.
-- Row-level security decides whose signals; the page is found by index, whatever its depth.
-- Must never break: pages joined are the list, with nothing twice and nothing left out.

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
  select rtrim(translate(encode(convert_to(
    encode_cursor.sort || ' ' || (extract(epoch from encode_cursor.generated_at) * 1000000)::bigint
    || ' ' || encode_cursor.seq, 'UTF8'), 'base64'), '+/', '-_'), '=')
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
  begin
    v_parts := regexp_match(
      convert_from(decode(rpad(
        translate(decode_cursor.cursor, '-_', '+/'),
        (length(decode_cursor.cursor) + 3) / 4 * 4, '='), 'base64'), 'UTF8'),
      '^(newest|seq) ([0-9]{1,16}) ([0-9]{1,18})$');
  exception
    when data_exception then v_parts := null;
  end;
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

create function private.query_signals(
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
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_page_size integer := coalesce(query_signals.page_size, 100);
  v_sort text := coalesce(
    query_signals.sort, case when query_signals.after_seq is null then 'newest' else 'seq' end);
  v_start record;
  v_rows json[];
  v_cursor text;
begin
  perform private.require_query(
    greatest(
      cardinality(query_signals.traders), cardinality(query_signals.symbols),
      cardinality(query_signals.timeframes), cardinality(query_signals.actions)),
    v_sort, v_page_size);
  v_start := private.decode_cursor(query_signals.cursor, v_sort);
  -- Planned at each call: the times given leave out the partitions of other days. The text that is
  -- put in is one of two constants.
  execute format($query$
    select array(
      select row_to_json(page)
      from (
        select
          signal_id, seq, trader_id, symbol, timeframe, generated_at, action, confidence, price,
          stop_loss, take_profit, valid_until, metadata
        from public.signals
        where ($1 is null or trader_id = any($1))
          and ($2 is null or symbol = any($2))
          and ($3 is null or timeframe = any($3))
          and ($4 is null or action = any($4))
          and ($5 is null or confidence >= $5)
          and ($6 is null or generated_at >= $6)
          and ($7 is null or generated_at < $7)
          and ($8 is null or seq > $8)
          and %s
        limit $11
      ) as page
    )
    $query$,
    case v_sort
      when 'seq' then 'seq > $10 order by seq'
      else 'generated_at <= $9 and (generated_at, seq) < ($9, $10)
        order by generated_at desc, seq desc'
    end)
  into v_rows
  using
    query_signals.traders, query_signals.symbols, query_signals.timeframes, query_signals.actions,
    query_signals.min_confidence, query_signals.from_time, query_signals.to_time,
    query_signals.after_seq, v_start.generated_at, v_start.seq, v_page_size + 1;

  if cardinality(v_rows) > v_page_size then
    v_rows := v_rows[:v_page_size];
    v_cursor := private.encode_cursor(
      v_sort, (v_rows[v_page_size] ->> 'generated_at')::timestamptz,
      (v_rows[v_page_size] ->> 'seq')::bigint);
  end if;
  return json_build_object(
    'signals', array_to_json(v_rows),
    'next_cursor', v_cursor,
    'last_seq', coalesce((
      select account.last_seq from private.accounts as account
      where account.account_id = v_account_id), 0));
end
$$;

comment on function private.query_signals is 'Body of public.query_signals.';

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
  select private.query_signals(
    traders, symbols, timeframes, actions, min_confidence, "from", "to", after_seq, sort, cursor,
    page_size)
$$;

comment on function public.query_signals is
'A page of the caller''s signals: newest first, or by seq (the default with after_seq). from is
inclusive, to exclusive. last_seq is the account''s in the same snapshot: when next_cursor is null,
every signal of the filter up to last_seq has been returned.';

grant execute on function private.encode_cursor to authenticated;
grant execute on function private.decode_cursor to authenticated;
grant execute on function private.require_query to authenticated;
grant execute on function private.query_signals to authenticated;
grant execute on function public.query_signals to authenticated;
