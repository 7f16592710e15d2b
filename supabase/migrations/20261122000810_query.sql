-- query_signals: pages of the caller's signals in any order, with their status and what came of them.
-- By time and seq the search finds a page; what has no index is found first, and then ordered or picked.
-- Must never break: pages joined are the list. Bounded are what is sorted and what is looked at for a
-- status; a filter without an index (tags, confidence, price) that few signals pass reads on until the
-- page is full, or the statement timeout ends it.

create function private.signal_fields()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    'signal_id', 'seq', 'trader_id', 'symbol', 'timeframe', 'generated_at', 'action', 'confidence',
    'price', 'stop_loss', 'take_profit', 'valid_until', 'metadata', 'status', 'outcome'
  ]
$$;

comment on function private.signal_fields is 'What a page can tell of a signal, in this order.';

create function private.require_fields(fields text[])
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if not require_fields.fields <@ private.signal_fields() then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot make the page: fields has a name that no field of a signal has.',
      'Use ' || array_to_string(private.signal_fields(), ', ') || '.');
  end if;
end
$$;

comment on function private.require_fields is 'PT400 unless all of them are fields of a signal.';

create function private.with_status(
  query private.signal_query,
  signals private.signals[],
  account private.accounts
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := private.clock();
begin
  if query.statuses is null then
    return with_status.signals;
  end if;
  return array(
    select with_status.signals[each.ordinality]
    from unnest(with_status.signals) with ordinality as each
    left join private.statuses_of(
      case when account.last_event_seq > 0 then with_status.signals end
    ) as state on state.seq = each.seq and state.generated_at = each.generated_at
    where coalesce(state.status, private.status_at(null, each.valid_until, v_now))
      = any(query.statuses)
    order by each.ordinality);
end
$$;

comment on function private.with_status is
'Those of the signals that have a status of the query now, in the order that they have.';

create function private.found_with_status(
  query private.signal_query,
  account private.accounts,
  out signals private.signals[],
  out next_cursor text
)
language plpgsql
stable
set search_path = ''
as $$
declare
  -- So many signals are looked at for a page: their events are found one by one.
  v_most constant integer := 10000;
  v_query private.signal_query := query;
  v_found private.signals[];
  v_signal private.signals;
  v_last private.signals;
  v_looked_at integer := 0;
begin
  signals := array[]::private.signals[];
  loop
    v_found := private.found_signals(v_query, account);
    foreach v_signal in array private.with_status(query, v_found, account) loop
      signals := array_append(signals, v_signal);
    end loop;
    v_looked_at := v_looked_at + cardinality(v_found);
    exit when cardinality(v_found) < v_query.row_limit
      or cardinality(signals) >= query.row_limit;
    v_last := v_found[v_query.row_limit];
    if v_looked_at >= v_most then
      next_cursor := private.encode_cursor(query, v_last);
      exit;
    end if;
    v_query := private.started_behind(v_query, null, v_last.generated_at, v_last.seq);
    v_query.row_limit := least(v_query.row_limit * 4, v_most / 4);
  end loop;
end
$$;

comment on function private.found_with_status is
'The first signals of the query with a status that it asks for, by time or by seq; and where to go on, if
so many had another that the search ended before a page was full.';

create function private.ranked_signals(
  query private.signal_query,
  account private.accounts
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
as $$
declare
  -- All of them are found for each page: no index has this order.
  v_most constant integer := 20000;
  v_query private.signal_query := private.sorted_by(query, 'newest');
  v_level double precision :=
    case when query.sort in ('confidence', '-confidence') then query.start_key::float8 end;
  v_signals private.signals[];
begin
  v_query.row_limit := v_most + 1;
  v_signals := private.found_signals(v_query, account);
  if cardinality(v_signals) > v_most then
    perform private.raise_error(
      400, 'query_too_wide',
      'Cannot sort: more than 20,000 signals pass the filters, and no index has this order.',
      'Narrow from and to, or ask for some traders or symbols only, or sort by newest.');
  end if;
  v_signals := private.with_status(query, v_signals, account);
  return array(
    select signal
    from unnest(v_signals) as signal
    where query.start_key is null
      or case query.sort
        when 'confidence' then
          (-signal.confidence, signal.generated_at, signal.seq)
          < (-v_level, query.start_time, query.start_seq)
        when '-confidence' then
          (signal.confidence, signal.generated_at, signal.seq)
          < (v_level, query.start_time, query.start_seq)
        when 'symbol' then
          signal.symbol > query.start_key or signal.symbol = query.start_key
          and (signal.generated_at, signal.seq) < (query.start_time, query.start_seq)
        else
          (signal.symbol, signal.generated_at, signal.seq)
          < (query.start_key, query.start_time, query.start_seq)
      end
    order by
      case query.sort
        when 'confidence' then signal.confidence
        when '-confidence' then -signal.confidence
      end,
      case query.sort when 'symbol' then signal.symbol end,
      case query.sort when '-symbol' then signal.symbol end desc,
      signal.generated_at desc,
      signal.seq desc
    limit query.row_limit);
end
$$;

comment on function private.ranked_signals is
'The first signals of the query by confidence or by symbol; PT400 where too many pass its filters.';

create function private.signals_json(
  signals private.signals[],
  fields text[],
  have_events boolean
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_now timestamptz := private.clock();
  v_generated text := private.status_at(null, null, v_now);
  v_expired text := private.status_at(null, v_now, v_now);
  v_tell_status boolean := signals_json.have_events
    and (signals_json.fields && array['status', 'outcome']) is not false;
begin
  return array_to_json(array(
    select case
      when signals_json.fields is null then row_to_json(page)
      else (
        select json_object_agg(field.key, field.value)
        from json_each(row_to_json(page)) as field
        where field.key = 'seq' or field.key = any(signals_json.fields))
    end
    from (
      select
        shown.signal_id, shown.seq, shown.trader_id, shown.symbol, shown.timeframe,
        shown.generated_at, shown.action, shown.confidence, shown.price, shown.stop_loss,
        shown.take_profit, shown.valid_until, shown.metadata,
        coalesce(
          state.status, case when shown.valid_until <= v_now then v_expired else v_generated end
        ) as status,
        case
          when num_nonnulls(state.entry_price, state.exit_price, state.reason) > 0
            then json_strip_nulls(json_build_object(
              'entry_price', state.entry_price, 'exit_price', state.exit_price,
              'close_reason', state.close_reason, 'return', state.return, 'fees', state.fees,
              'reason', state.reason))
        end as outcome
      from private.shown_signals(signals_json.signals) as shown
      inner join unnest(signals_json.signals) with ordinality as given on given.seq = shown.seq
      -- Most accounts report no events, and their pages need not look for any.
      left join private.statuses_of(
        case when v_tell_status then signals_json.signals end
      ) as state on state.seq = shown.seq and state.generated_at = shown.generated_at
      order by given.ordinality
    ) as page));
end
$$;

comment on function private.signals_json is
'The signals as clients see them, in their order, with their status and what came of them: all fields, or
these and seq. have_events tells whether the account has any lifecycle event.';

create function private.query_signals(
  query private.signal_query,
  fields text[]
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts;
  v_signals private.signals[];
  v_page_size integer := query.row_limit - 1;
  v_cursor text;
begin
  perform private.require_fields(query_signals.fields);
  select account.* into v_account
  from private.accounts as account
  where account.account_id = auth.uid();
  if query.sort in ('confidence', '-confidence', 'symbol', '-symbol') then
    v_signals := private.ranked_signals(query, v_account);
  elsif query.statuses is null then
    v_signals := private.found_signals(query, v_account);
  else
    select found.signals, found.next_cursor into v_signals, v_cursor
    from private.found_with_status(query, v_account) as found;
  end if;
  -- One signal more than the page was asked for: it tells that there is a next page.
  if cardinality(v_signals) > v_page_size then
    v_signals := v_signals[:v_page_size];
    v_cursor := private.encode_cursor(query, v_signals[v_page_size]);
  end if;
  return json_build_object(
    'signals', private.signals_json(
      v_signals, query_signals.fields, v_account.last_event_seq > 0),
    'next_cursor', v_cursor,
    'last_seq', coalesce(v_account.last_seq, 0));
end
$$;

comment on function private.query_signals is
'Body of public.query_signals. private.read_filter has asked for the scope; the policies ask again.';

create function public.query_signals(
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
  sort text default null,
  cursor text default null,
  page_size integer default 100,
  fields text[] default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.query_signals(
    private.read_page(
      private.read_filter(
        traders, symbols, symbol_prefix, timeframes, actions, statuses, tags, min_confidence,
        max_confidence, min_price, max_price, "from", "to", after_seq, until_seq),
      coalesce(sort, case when after_seq is null then 'newest' else 'seq' end),
      cursor, page_size),
    fields)
$$;

comment on function public.query_signals is
'A page of the caller''s signals: by time (newest, the default, or oldest), by seq (seq, the default with
after_seq, or -seq), by confidence or by symbol (confidence, -confidence, symbol, -symbol: where not more
than 20,000 signals pass the filters). from, until_seq and all min and max are inclusive, to and after_seq
exclusive. A cursor goes with its order and its filters. With statuses a page may be shorter than
page_size where very many signals have another status: only a next_cursor of null tells that there is no
other. last_seq is the account''s in the same snapshot: when next_cursor is null, every signal of the
filter up to last_seq has been returned.';

grant execute on function private.signal_fields to authenticated;
grant execute on function private.require_fields to authenticated;
grant execute on function private.with_status to authenticated;
grant execute on function private.found_with_status to authenticated;
grant execute on function private.ranked_signals to authenticated;
grant execute on function private.signals_json to authenticated;
grant execute on function private.query_signals to authenticated;
grant execute on function public.query_signals to authenticated;
