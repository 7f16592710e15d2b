-- advance_signals: changes of status in, one verdict out, in one transaction, as ingest_signals.
-- Signals are found first, hot or packed; under the account's lock come replay, judgement and events.
-- Must never break: of two workers that advance one signal at once, exactly one wins.

create table private.advances (
  received_at timestamptz not null,
  payload_hash bigint not null,
  first_seq bigint,
  last_seq bigint,
  account_no integer not null,
  request_id uuid not null,
  correlation_id text,
  refused jsonb,
  -- A key of a partitioned table contains received_at; the lock of the account keeps request_id unique.
  primary key (account_no, request_id, received_at),
  constraint seq_range_is_whole check ((first_seq is null) = (last_seq is null)),
  constraint seq_range_is_not_empty check (first_seq <= last_seq),
  constraint refused_is_a_list_with_items check (jsonb_array_length(refused) > 0)
) partition by range (received_at);

comment on table private.advances is
'The ledger of advance_signals, as private.batches is that of ingest_signals: one row per answered
request, with what a replay needs to give its verdict again.';
comment on column private.advances.payload_hash is
'jsonb_hash_extended of the changes: tells a replay from a request_id used twice by mistake.';
comment on column private.advances.first_seq is 'Event seq, as last_seq.';
comment on column private.advances.refused is
'What was not accepted, as [[index, code], ...]; null when all was.';

insert into private.item_codes (code, message)
values
('invalid_change', 'The change is not a JSON object with the fields of a change and no others.'),
('invalid_status', 'status must be analyzed, executed, closed, cancelled or rejected; expired comes by itself.'),
('invalid_occurred_at', 'occurred_at must be null or an ISO 8601 time, at most 1 minute before generated_at and at most 1 minute ahead of the database clock.'),
('invalid_entry_price', 'entry_price must be null, or with status executed a finite number of magnitude at most 1e15.'),
('invalid_exit_price', 'exit_price must be a finite number of magnitude at most 1e15 with status closed, and null with any other.'),
('invalid_close_reason', 'close_reason must be take_profit, stop_loss, trailing_stop, time_limit, exit_signal, reversed, manual or liquidation with status closed, and null with any other.'),
('invalid_return', 'return must be null, or with status closed a fraction (0.05 is 5 %) of magnitude at most 1e6.'),
('invalid_fees', 'fees must be null, or with status closed a finite number of magnitude at most 1e15, in the quote currency.'),
('invalid_reason', 'reason must be null or a text of 1 to 200 characters without control characters.'),
('unknown_signal', 'No signal of this account has this trader, symbol, timeframe and generated_at.'),
('invalid_transition', 'The status that the signal has now does not allow this change.'),
('duplicate_change', 'The signal has had this status with the same content already.');

create type private.change as (
  index integer,
  place integer,
  signal_seq bigint,
  trader_no integer,
  symbol text,
  timeframe smallint,
  generated_at timestamptz,
  valid_until timestamptz,
  status smallint,
  occurred_at timestamptz,
  entry_price double precision,
  exit_price double precision,
  close_reason smallint,
  return double precision,
  fees double precision,
  reason text,
  code text
);

comment on type private.change is
'One change of a request after validation: values where they are valid, else the code that refuses it.
place numbers the signals of the request: changes of one signal have the same.';

create function private.number_from(value jsonb)
returns double precision
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(value) = 'number' and pg_input_is_valid(value #>> '{}', 'double precision') then
    return value::double precision;
  end if;
  return null;
end
$$;

comment on function private.number_from is 'The number that a JSON value is, else null.';

create function private.time_from(value text)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if value between '1' and '3' collate "C"
    and translate(value, '123456789', '000000000') = any(private.timestamp_shapes())
    and substr(value, 12, 2) < '24' collate "C"
    and substr(value, 18, 2) < '60' collate "C"
    and (value like '%Z' or right(value, 5) < '15' collate "C")
    and pg_input_is_valid(value, 'timestamptz') then
    return value::timestamptz;
  end if;
  return null;
end
$$;

comment on function private.time_from is
'The time that a text in one of the accepted forms of a timestamp names, else null.';

create function private.read_changes(
  account_no integer,
  changes jsonb
)
returns setof private.change
language sql
stable
set search_path = ''
as $$
  select
    field.index,
    null::integer,
    null::bigint,
    trader.trader_no,
    field.symbol,
    value.timeframe,
    value.generated_at,
    null::timestamptz,
    value.status,
    case when field.occurred_at is null then field.now else value.occurred_at end,
    value.entry_price,
    value.exit_price,
    value.close_reason,
    value.return,
    value.fees,
    field.reason,
    case
      when jsonb_typeof(field.element) <> 'object' then 'invalid_change'
      when field.element - array[
        'trader_id', 'symbol', 'timeframe', 'generated_at', 'status', 'occurred_at', 'entry_price',
        'exit_price', 'close_reason', 'return', 'fees', 'reason'
      ] <> '{}' then 'invalid_change'
      when trader.trader_no is null and (field.trader_id
        ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') is not true
        then 'invalid_trader_id'
      when (field.symbol ~ '^[A-Za-z0-9._/:=@#!&^+-]{1,32}$') is not true then 'invalid_symbol'
      when value.timeframe is null then 'invalid_timeframe'
      when value.generated_at is null then 'invalid_generated_at'
      when (value.status not in (1, 5)) is not true then 'invalid_status'
      when field.occurred_at is not null and (
        value.occurred_at between value.generated_at - interval '1 minute'
        and field.now + interval '1 minute') is not true then 'invalid_occurred_at'
      when field.entry_price is not null
        and (value.status = 3 and value.entry_price between -1e15 and 1e15) is not true
        then 'invalid_entry_price'
      when value.status = 4 and (value.exit_price between -1e15 and 1e15) is not true
        or value.status <> 4 and field.exit_price is not null then 'invalid_exit_price'
      when value.status = 4 and value.close_reason is null
        or value.status <> 4 and field.close_reason is not null then 'invalid_close_reason'
      when field.return is not null
        and (value.status = 4 and value.return between -1e6 and 1e6) is not true
        then 'invalid_return'
      when field.fees is not null
        and (value.status = 4 and value.fees between -1e15 and 1e15) is not true
        then 'invalid_fees'
      when field.reason is not null and (field.reason_type = 'string'
        and char_length(field.reason) between 1 and 200 and field.reason !~ '[[:cntrl:]]') is not true
        then 'invalid_reason'
    end
  from (
    select
      raw.index - 1 as index,
      raw.element,
      private.clock() as now,
      raw.element ->> 'trader_id' as trader_id,
      case jsonb_typeof(raw.element -> 'symbol')
        when 'string' then raw.element ->> 'symbol' end as symbol,
      raw.element ->> 'timeframe' as timeframe,
      raw.element ->> 'generated_at' as generated_at,
      raw.element ->> 'status' as status,
      raw.element ->> 'occurred_at' as occurred_at,
      nullif(raw.element -> 'entry_price', 'null') as entry_price,
      nullif(raw.element -> 'exit_price', 'null') as exit_price,
      raw.element ->> 'close_reason' as close_reason,
      nullif(raw.element -> 'return', 'null') as return,
      nullif(raw.element -> 'fees', 'null') as fees,
      raw.element ->> 'reason' as reason,
      jsonb_typeof(raw.element -> 'reason') as reason_type
    from jsonb_array_elements(read_changes.changes) with ordinality as raw (element, index)
    offset 0
  ) as field
  cross join lateral (
    select
      array_position(private.timeframes(), field.timeframe) as timeframe,
      private.time_from(field.generated_at) as generated_at,
      array_position(private.statuses(), field.status) as status,
      private.time_from(field.occurred_at) as occurred_at,
      private.number_from(field.entry_price) as entry_price,
      private.number_from(field.exit_price) as exit_price,
      array_position(private.close_reasons(), field.close_reason) as close_reason,
      private.number_from(field.return) as return,
      private.number_from(field.fees) as fees
    offset 0
  ) as value
  -- Archived traders as well: a signal may end after its trader was retired.
  left join (
    select trader.trader_no, trader.trader_id::text as trader_id
    from private.traders as trader
    where trader.account_no = read_changes.account_no
  ) as trader on trader.trader_id = lower(field.trader_id collate "C")
$$;

comment on function private.read_changes is
'Validates the changes of a request: one row each, with the code of the first rule it breaks.';

create function private.signals_at(
  account_no integer,
  times timestamptz[]
)
returns setof private.signals
language plpgsql
stable
set search_path = ''
-- Planned once a session: with all partitions that takes longer than to find a few signals.
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
    select signal.*
    from unnest(signals_at.times) as moment
    inner join private.signals as signal
      on signal.account_no = signals_at.account_no and signal.generated_at = moment
    union all
    select signal.*
    from private.segments as segment
    -- Which of the times lie in the segment, and where in the segment the first and last of them are:
    -- both are in order, so that width_bucket finds it by bisection.
    cross join lateral (
      select
        1 + width_bucket(segment.first_generated_at - interval '1 microsecond', times) as first,
        width_bucket(segment.last_generated_at, times) as last
    ) as wanted
    cross join lateral (
      select
        1 + width_bucket(
          times[wanted.first] - interval '1 microsecond', segment.generated_at_values) as first,
        width_bucket(times[wanted.last], segment.generated_at_values) as last
    ) as position
    cross join lateral private.unpacked_signals(segment, position.first, position.last) as signal
    where segment.account_no = signals_at.account_no
      and segment.last_generated_at >= times[1]
      and segment.first_generated_at <= times[cardinality(times)]
      -- A segment lies in one month: this leaves out the partitions of the months before.
      and segment.first_generated_at >= date_trunc('month', times[1], 'utc')
      and wanted.first <= wanted.last;
end
$$;

comment on function private.signals_at is
'The signals of an account that were generated at these times (which are in order), packed or not; and
others of a segment that lie between. Every segment is opened at most once.';

create function private.find_signals(
  account_no integer,
  changes private.change[]
)
returns private.change[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_times timestamptz[] := (
    select array_agg(distinct change.generated_at order by change.generated_at)
    from unnest(changes) as change
    where change.code is null);
begin
  return (
    select array_agg(located::private.change order by located.index)
    from (
      select
        change.index,
        dense_rank() over (order by stored.seq)::integer as place,
        stored.seq as signal_seq,
        change.trader_no,
        change.symbol,
        change.timeframe,
        change.generated_at,
        stored.valid_until,
        change.status,
        change.occurred_at,
        change.entry_price,
        change.exit_price,
        change.close_reason,
        change.return,
        change.fees,
        change.reason,
        case
          when change.code is null and stored.seq is null then 'unknown_signal' else change.code
        end as code
      from unnest(changes) as change
      left join private.signals_at(find_signals.account_no, v_times) as stored
        on change.code is null
        and stored.generated_at = change.generated_at
        and stored.trader_no = change.trader_no
        and stored.symbol = change.symbol
        and stored.timeframe = change.timeframe
    ) as located
  );
end
$$;

comment on function private.find_signals is
'The changes with the seq and valid_until of their signals, and unknown_signal where there is none.';

create function private.judge_changes(
  account private.accounts,
  changes private.change[]
)
returns private.change[]
language plpgsql
stable
set search_path = ''
as $$
declare
  -- What was told as expired stays so, also for a transaction that began before.
  v_now timestamptz := greatest(private.clock(), account.expired_until);
  v_allowed text[] := array(
    select transition.from_status || ' ' || transition.to_status
    from private.transitions as transition);
  v_judged private.change[] := changes;
  v_places integer := (select coalesce(max(change.place), 0) from unnest(changes) as change);
  v_statuses text[] := array_fill(null::text, array[v_places]);
  v_contents text[] := array_fill(null::text, array[v_places, cardinality(private.statuses())]);
  v_row record;
begin
  for v_row in
    select
      signal.place, signal.valid_until, event.status,
      row(event.entry_price, event.exit_price, event.close_reason, event.return, event.fees,
        event.reason)::text as content
    from (
      select distinct change.place, change.signal_seq, change.generated_at, change.valid_until
      from unnest(changes) as change
      where change.code is null
    ) as signal
    left join private.signal_events as event
      on event.account_no = judge_changes.account.account_no
      and event.signal_seq = signal.signal_seq
      and event.generated_at = signal.generated_at
      and event.expired_seqs is null
    order by event.seq
  loop
    v_statuses[v_row.place] := private.status_at(v_row.status, v_row.valid_until, v_now);
    if v_row.status is not null then
      v_contents[v_row.place][v_row.status] := v_row.content;
    end if;
  end loop;

  for v_row in
    select
      change.place, change.status, (private.statuses())[change.status] as word,
      row(change.entry_price, change.exit_price, change.close_reason, change.return, change.fees,
        change.reason)::text as content,
      number
    from unnest(changes) with ordinality as change (
      index, place, signal_seq, trader_no, symbol, timeframe, generated_at, valid_until, status,
      occurred_at, entry_price, exit_price, close_reason, return, fees, reason, code, number
    )
    where change.code is null
    order by number
  loop
    if v_contents[v_row.place][v_row.status] = v_row.content then
      v_judged[v_row.number].code := 'duplicate_change';
    elsif v_statuses[v_row.place] || ' ' || v_row.word = any(v_allowed) then
      v_statuses[v_row.place] := v_row.word;
      v_contents[v_row.place][v_row.status] := v_row.content;
    else
      v_judged[v_row.number].code := 'invalid_transition';
    end if;
  end loop;
  return v_judged;
end
$$;

comment on function private.judge_changes is
'The changes, in their order, with a code for those that the status of their signal does not allow.
The caller holds the lock of the account.';

create function private.store_changes(
  account private.accounts,
  changes private.change[]
)
returns void
language sql
set search_path = ''
as $$
  insert into private.signal_events (
    generated_at, seq, signal_seq, occurred_at, received_at, entry_price, exit_price, return, fees,
    account_no, trader_no, timeframe, status, close_reason, symbol, reason
  )
  select
    change.generated_at,
    store_changes.account.last_event_seq + row_number() over (order by change.index),
    change.signal_seq, change.occurred_at, private.clock(), change.entry_price, change.exit_price,
    change.return, change.fees, store_changes.account.account_no, change.trader_no,
    change.timeframe, change.status, change.close_reason, change.symbol, change.reason
  from unnest(store_changes.changes) as change
  where change.code is null
$$;

comment on function private.store_changes is
'Appends an event for each change that no code refuses, with consecutive seq.';

create function private.replayed_advance(
  account_no integer,
  request_id uuid,
  payload_hash bigint
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := private.clock();
  v_advance private.advances;
begin
  -- A replay may have begun before the request that it repeats: hence the day ahead.
  select advance.* into v_advance
  from private.advances as advance
  where advance.account_no = replayed_advance.account_no
    and advance.request_id = replayed_advance.request_id
    and advance.received_at > v_now - interval '14 days'
    and advance.received_at < v_now + interval '1 day';
  if not found then
    return null;
  end if;
  if v_advance.payload_hash <> replayed_advance.payload_hash then
    perform private.raise_error(
      409, 'request_id_reused',
      'Cannot take the changes: their request_id was used for different ones.',
      'Use a new request_id for new changes.');
  end if;
  return private.verdict_of(
    v_advance.request_id, v_advance.first_seq, v_advance.last_seq, v_advance.refused);
end
$$;

comment on function private.replayed_advance is
'The verdict given for this request_id in the last 14 days, or null; PT409 when the changes were
others.';

create function private.apply_changes(
  account private.accounts,
  request_id uuid,
  payload_hash bigint,
  changes private.change[]
)
returns json
language plpgsql
set search_path = ''
as $$
declare
  v_changes private.change[] := private.judge_changes(account, changes);
  v_advance private.advances;
  v_accepted bigint;
begin
  select
    count(*) filter (where change.code is null),
    jsonb_agg(jsonb_build_array(change.index, change.code) order by change.index)
      filter (where change.code is not null)
  into v_accepted, v_advance.refused
  from unnest(v_changes) as change;

  v_advance.account_no := account.account_no;
  v_advance.request_id := apply_changes.request_id;
  v_advance.received_at := private.clock();
  v_advance.payload_hash := apply_changes.payload_hash;
  v_advance.correlation_id := left(
    nullif(current_setting('request.headers', true), '')::json ->> 'x-correlation-id', 64);
  if v_accepted > 0 then
    v_advance.first_seq := account.last_event_seq + 1;
    v_advance.last_seq := account.last_event_seq + v_accepted;
    perform private.store_changes(account, v_changes);
    perform private.publish_events(account, v_accepted);
  end if;
  insert into private.advances select v_advance.*;
  return private.verdict_of(
    v_advance.request_id, v_advance.first_seq, v_advance.last_seq, v_advance.refused);
end
$$;

comment on function private.apply_changes is
'Appends the events of the changes that are allowed, writes the ledger row and gives the verdict. The
caller holds the lock of the account.';

create function private.advance_signals(
  request_id uuid,
  changes jsonb
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:write');
  v_payload_hash bigint := jsonb_hash_extended(advance_signals.changes, 0);
  v_account_no integer;
  v_changes private.change[];
  v_account private.accounts;
  v_verdict json;
begin
  perform private.require_request(
    advance_signals.request_id, advance_signals.changes, 'changes');
  select account.account_no into v_account_no
  from private.accounts as account
  where account.account_id = v_account_id;
  v_changes := private.find_signals(v_account_no, array(
    select change from private.read_changes(v_account_no, advance_signals.changes) as change));

  v_account := private.lock_account(v_account_id);
  v_verdict := private.replayed_advance(
    v_account.account_no, advance_signals.request_id, v_payload_hash);
  if v_verdict is null then
    v_verdict := private.apply_changes(
      v_account, advance_signals.request_id, v_payload_hash, v_changes);
  end if;
  return v_verdict;
end
$$;

comment on function private.advance_signals is 'Body of public.advance_signals.';

create function public.advance_signals(
  request_id uuid,
  changes jsonb
)
returns json
language plpgsql
set search_path = ''
as $$
begin
  return private.advance_signals(advance_signals.request_id, advance_signals.changes);
end
$$;

comment on function public.advance_signals is
'Records what became of signals: each change names a signal by trader_id, symbol, timeframe and
generated_at, and the status that it reaches. Changes of one signal are applied in their order; one
that is not allowed never sinks the others; the same request_id gets the same verdict again.';

alter table private.advances enable row level security;

grant execute on function private.signals_at to authenticated;
grant execute on function private.advance_signals to authenticated;
grant execute on function public.advance_signals to authenticated;
