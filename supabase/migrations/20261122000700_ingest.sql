-- ingest_signals: one batch in, one verdict out, in one transaction.
-- The account's row is locked once; under that lock come replay, duplicates, quota, seq and ledger.
-- Must never break: a request_id that was answered is answered the same again and changes nothing.

create table private.batches (
  account_no integer not null,
  request_id uuid not null,
  received_at timestamptz not null,
  payload_hash bigint not null,
  first_seq bigint,
  last_seq bigint,
  first_generated_at timestamptz,
  last_generated_at timestamptz,
  correlation_id text,
  verdict json not null,
  constraint batch_is_answered_once primary key (account_no, request_id),
  constraint seq_range_is_whole check ((first_seq is null) = (last_seq is null)),
  constraint seq_range_is_not_empty check (first_seq <= last_seq)
);

comment on table private.batches is
'The ledger: one row per answered request, with the verdict that a replay of it gets again.';
comment on column private.batches.correlation_id is
'The x-correlation-id of the request: the same id is in the logs of the edge function.';
comment on column private.batches.payload_hash is
'jsonb_hash_extended of the signals: tells a replay from a request_id used twice by mistake. The
function may change with a major version of PostgreSQL; a batch is not retried for that long.';
comment on column private.batches.first_generated_at is
'Earliest generated_at of the accepted signals; with last_generated_at the span that a broadcast reads.';

create table private.item_codes (
  code text primary key,
  message text not null
);

comment on table private.item_codes is 'Why a signal of a batch is not accepted, and what to do.';

insert into private.item_codes (code, message)
values
('invalid_signal', 'The signal is not a JSON object: send an object with the fields of a signal.'),
('unknown_field', 'The signal has a field that is not part of a signal: put it in metadata or leave it out.'),
('invalid_trader_id', 'trader_id must be a UUID in the form 8-4-4-4-12.'),
('invalid_symbol', 'symbol must be 1 to 32 letters, digits or any of . _ / : = @ # ! & ^ + -'),
('invalid_timeframe', 'timeframe must be one of the supported bar sizes, such as 1m, 15m, 1h or 1d.'),
('invalid_generated_at', 'generated_at must be an ISO 8601 time with seconds, at most microseconds, and Z or an offset.'),
('invalid_action', 'action must be enter_long, exit_long, enter_short or exit_short.'),
('invalid_confidence', 'confidence must be a number from 0 to 1.'),
('invalid_price', 'price must be a finite number of magnitude at most 1e15.'),
('invalid_stop_loss', 'stop_loss must be null or a finite number of magnitude at most 1e15.'),
('invalid_take_profit', 'take_profit must be null or a finite number of magnitude at most 1e15.'),
('invalid_valid_until', 'valid_until must be null or an ISO 8601 time later than generated_at.'),
('invalid_metadata', 'metadata must be null or a JSON object of at most 2048 bytes, without NUL or unpaired surrogates.'),
('stale', 'generated_at is more than 7 days ago: load history with an import instead.'),
('in_future', 'generated_at is more than 1 minute ahead of the database clock: check the clock of this machine.'),
('unknown_trader', 'No active trader of this account has this trader_id: create it with create_trader.'),
('duplicate', 'A signal with the same trader, symbol, timeframe and generated_at is already stored.'),
('rate_limited', 'The account''s allowance for this minute is used up: send it again in the next minute.'),
('quota_exceeded', 'The account''s allowance for this day (UTC) is used up: it starts anew at 00:00 UTC.');

create type private.candidate as (
  index integer,
  trader_no integer,
  symbol text,
  timeframe smallint,
  generated_at timestamptz,
  action smallint,
  confidence double precision,
  price double precision,
  stop_loss double precision,
  take_profit double precision,
  valid_until timestamptz,
  metadata jsonb,
  code text
);

comment on type private.candidate is
'One signal of a batch after validation: values where they are valid, else the code that refuses it.';

create function private.timestamp_shapes()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array_agg('0000-00-00T00:00:00' || fraction || zone)
  from unnest(array['', '.0', '.00', '.000', '.0000', '.00000', '.000000']) as fraction,
    unnest(array['Z', '+00:00', '-00:00']) as zone
$$;

comment on function private.timestamp_shapes is
'The accepted forms of a timestamp, with every digit written as 0.';

create function private.read_signals(
  account_id uuid,
  signals jsonb,
  careful boolean
)
returns private.candidate[]
language plpgsql
stable
set plan_cache_mode = 'force_generic_plan'
set search_path = ''
as $$
declare
  v_now timestamptz := private.clock();
  v_account_no integer := (
    select account.account_no from private.accounts as account
    where account.account_id = read_signals.account_id);
begin
  return (
    select array_agg((
      field.index,
      trader.trader_no,
      field.symbol,
      value.timeframe,
      value.generated_at,
      value.action,
      value.confidence,
      value.price,
      value.stop_loss,
      value.take_profit,
      value.valid_until,
      field.metadata,
      case
        when jsonb_typeof(field.element) <> 'object' then 'invalid_signal'
        when field.element - array[
          'trader_id', 'symbol', 'timeframe', 'generated_at', 'action', 'confidence', 'price',
          'stop_loss', 'take_profit', 'valid_until', 'metadata'
        ] <> '{}' then 'unknown_field'
        when trader.trader_no is null and (field.trader_id
          ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$') is not true
          then 'invalid_trader_id'
        when (field.symbol_type = 'string'
          and octet_length(field.symbol) between 1 and 32
          and btrim(field.symbol, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
            'abcdefghijklmnopqrstuvwxyz0123456789._/:=@#!&^+-') = '') is not true
          then 'invalid_symbol'
        when value.timeframe is null then 'invalid_timeframe'
        -- The form that PostgreSQL writes is a right one; only another form needs the closer look.
        when (field.generated_at between '1' and '3' collate "C" and (
          to_json(value.generated_at)::text
            = '"' || replace(field.generated_at, 'Z', '+00:00') || '"'
          or translate(field.generated_at, '123456789', '000000000')
            = any(private.timestamp_shapes())
          and substr(field.generated_at, 12, 2) < '24' collate "C"
          and substr(field.generated_at, 18, 2) < '60' collate "C"
          and (field.generated_at like '%Z' or right(field.generated_at, 5) < '15' collate "C")
          and value.generated_at is not null)) is not true
          then 'invalid_generated_at'
        when value.action is null then 'invalid_action'
        when (value.confidence between 0 and 1) is not true then 'invalid_confidence'
        when (value.price between -1e15 and 1e15) is not true then 'invalid_price'
        when field.stop_loss is not null and (value.stop_loss between -1e15 and 1e15) is not true
          then 'invalid_stop_loss'
        when field.take_profit is not null
          and (value.take_profit between -1e15 and 1e15) is not true then 'invalid_take_profit'
        when field.valid_until is not null and (
          value.valid_until > value.generated_at
          and field.valid_until between '1' and '3' collate "C"
          and substr(field.valid_until, 12, 2) < '24' collate "C"
          and substr(field.valid_until, 18, 2) < '60' collate "C"
          and (field.valid_until like '%Z' or right(field.valid_until, 5) < '15' collate "C")
          and translate(field.valid_until, '123456789', '000000000')
            = any(private.timestamp_shapes())) is not true
          then 'invalid_valid_until'
        when jsonb_typeof(field.metadata) <> 'object'
          or octet_length(field.metadata::text) > 2048 then 'invalid_metadata'
        when value.generated_at < v_now - interval '7 days' then 'stale'
        when value.generated_at > v_now + interval '1 minute' then 'in_future'
        when trader.trader_no is null then 'unknown_trader'
      end
    )::private.candidate)
    from (
      select
        raw.index - 1 as index,
        raw.element,
        raw.element ->> 'trader_id' as trader_id,
        raw.element ->> 'symbol' as symbol,
        jsonb_typeof(raw.element -> 'symbol') as symbol_type,
        raw.element ->> 'timeframe' as timeframe,
        raw.element ->> 'generated_at' as generated_at,
        raw.element ->> 'action' as action,
        raw.element -> 'confidence' as confidence,
        raw.element -> 'price' as price,
        nullif(raw.element -> 'stop_loss', 'null') as stop_loss,
        nullif(raw.element -> 'take_profit', 'null') as take_profit,
        raw.element ->> 'valid_until' as valid_until,
        nullif(raw.element -> 'metadata', 'null') as metadata
      from jsonb_array_elements(read_signals.signals) with ordinality as raw (element, index)
      offset 0
    ) as field
    cross join lateral (
      select
        array_position(private.timeframes(), field.timeframe) as timeframe,
        case
          when not read_signals.careful or pg_input_is_valid(field.generated_at, 'timestamptz')
            then field.generated_at::timestamptz
        end as generated_at,
        array_position(private.actions(), field.action) as action,
        case
          when not read_signals.careful or jsonb_typeof(field.confidence) = 'number'
            and pg_input_is_valid(field.confidence #>> '{}', 'double precision')
            then field.confidence::double precision
        end as confidence,
        case
          when not read_signals.careful or jsonb_typeof(field.price) = 'number'
            and pg_input_is_valid(field.price #>> '{}', 'double precision')
            then field.price::double precision
        end as price,
        case
          when not read_signals.careful or jsonb_typeof(field.stop_loss) = 'number'
            and pg_input_is_valid(field.stop_loss #>> '{}', 'double precision')
            then field.stop_loss::double precision
        end as stop_loss,
        case
          when not read_signals.careful or jsonb_typeof(field.take_profit) = 'number'
            and pg_input_is_valid(field.take_profit #>> '{}', 'double precision')
            then field.take_profit::double precision
        end as take_profit,
        case
          when not read_signals.careful or pg_input_is_valid(field.valid_until, 'timestamptz')
            then field.valid_until::timestamptz
        end as valid_until
      offset 0
    ) as value
    left join (
      select trader.trader_no, trader.trader_id::text as trader_id
      from private.traders as trader
      where trader.account_no = v_account_no and trader.archived_at is null
    ) as trader on trader.trader_id = lower(field.trader_id collate "C")
  );
end
$$;

comment on function private.read_signals is
'Validates a batch: one candidate a signal, with the code of the first rule it breaks. Unless it is
careful, a value of the wrong kind raises a data exception instead.';

create function private.parse_signals(
  account_id uuid,
  signals jsonb
)
returns private.candidate[]
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Most batches hold no value of a wrong kind; not to ask for it first saves a tenth of the time.
  return private.read_signals(parse_signals.account_id, parse_signals.signals, false);
exception
  when data_exception then
    return private.read_signals(parse_signals.account_id, parse_signals.signals, true);
end
$$;

comment on function private.parse_signals is
'Validates a batch: one candidate a signal, with the code of the first rule it breaks.
Strings are compared as they are written, so the answer is the same in SQL, TypeScript and Python.';

create function private.require_batch(
  request_id uuid,
  signals jsonb
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if require_batch.request_id is null or jsonb_typeof(require_batch.signals) is distinct from 'array' then
    perform private.raise_error(
      400, 'invalid_request', 'Cannot read the batch: it needs a request_id and a list of signals.',
      'Send {"request_id": <uuid>, "signals": [<signal>, ...]}.');
  end if;
  -- The edge function holds bodies to 1 MB of text; the same batch is at most twice that as jsonb.
  if jsonb_array_length(require_batch.signals) > 5000
    or pg_column_size(require_batch.signals) > 2 * 1048576 then
    perform private.raise_error(
      413, 'batch_too_large', 'Cannot take the batch: it has more than 5000 signals or 1 MB.',
      'Split the batch.');
  end if;
end
$$;

comment on function private.require_batch is 'Raises the catalogue error of a batch that cannot be read.';

create function private.replayed_verdict(
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
  v_batch private.batches;
begin
  select batch.* into v_batch
  from private.batches as batch
  where batch.account_no = replayed_verdict.account_no
    and batch.request_id = replayed_verdict.request_id;
  if found and v_batch.payload_hash <> replayed_verdict.payload_hash then
    perform private.raise_error(
      409, 'request_id_reused',
      'Cannot take the batch: its request_id was used for a different batch.',
      'Use a new request_id for a new batch.');
  end if;
  return v_batch.verdict;
end
$$;

comment on function private.replayed_verdict is
'The verdict given before for this request_id, or null; PT409 when the signals were others.';

create function private.opened_windows(account private.accounts)
returns private.accounts
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts := opened_windows.account;
  v_now timestamptz := private.clock();
begin
  -- Only forward: a transaction that began before midnight may get the lock after one that began
  -- later, and must not give the new day's allowance back.
  if v_account.day_started < (v_now at time zone 'utc')::date then
    v_account.day_started := (v_now at time zone 'utc')::date;
    v_account.day_used := 0;
  end if;
  if v_account.minute_started < date_trunc('minute', v_now) then
    v_account.minute_started := date_trunc('minute', v_now);
    v_account.minute_used := 0;
  end if;
  return v_account;
end
$$;

comment on function private.opened_windows is
'The account with its counters at 0 where a new day (UTC) or minute has begun.';

create type private.storage_result as (
  accepted bigint,
  duplicate bigint,
  rejected bigint,
  first_generated_at timestamptz,
  last_generated_at timestamptz,
  items json
);

comment on type private.storage_result is
'What became of a batch: counts, the span of what was stored, and why the rest was not.';

create function private.store_all(
  account private.accounts,
  candidates private.candidate[]
)
returns private.storage_result
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_result private.storage_result;
begin
  with stored as (
    insert into private.signals (
      generated_at, seq, confidence, price, stop_loss, take_profit, valid_until,
      account_no, trader_no, timeframe, action, symbol, metadata
    )
    select
      each.generated_at, store_all.account.last_seq + each.index + 1, each.confidence,
      each.price, each.stop_loss, each.take_profit, each.valid_until,
      store_all.account.account_no, each.trader_no, each.timeframe, each.action,
      each.symbol, each.metadata
    from unnest(store_all.candidates) as each
  )
  select count(*), 0, 0, min(each.generated_at), max(each.generated_at), '[]'::json
  into v_result
  from unnest(store_all.candidates) as each;
  return v_result;
exception
  when unique_violation then return null;
end
$$;

comment on function private.store_all is
'Stores a batch in which all is valid and within the allowance, in one insert; null, and nothing
stored, when one of its signals is a duplicate. The caller holds the lock of the account.';

create function private.store_signals(
  account private.accounts,
  candidates private.candidate[],
  day_left bigint,
  minute_left bigint
)
returns private.storage_result
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_result private.storage_result;
begin
  with candidate as materialized (
    select
      each.*,
      row_number() over (
        partition by each.code, each.generated_at, each.trader_no, each.symbol, each.timeframe
        order by each.index
      ) > 1 as is_repeat,
      exists (
        select from private.signals as stored
        where stored.account_no = store_signals.account.account_no
          and stored.generated_at = each.generated_at
          and stored.trader_no = each.trader_no
          and stored.symbol = each.symbol
          and stored.timeframe = each.timeframe
      ) as is_stored
    from unnest(store_signals.candidates) as each
  ),
  numbered as (
    select
      candidate.*,
      count(*) filter (
        where candidate.code is null and not candidate.is_repeat and not candidate.is_stored
      ) over (order by candidate.index) as number
    from candidate
  ),
  counted as (
    -- A repeat shares the fate of the first: without an allowance for that, neither is stored.
    select
      numbered.*,
      min(numbered.number) over (
        partition by numbered.code, numbered.generated_at, numbered.trader_no, numbered.symbol,
          numbered.timeframe
      ) as first_number
    from numbered
  ),
  judged as materialized (
    select
      counted.*,
      case
        when counted.code is not null then counted.code
        when counted.is_stored then 'duplicate'
        when counted.first_number > store_signals.day_left then 'quota_exceeded'
        when counted.first_number > store_signals.minute_left then 'rate_limited'
        when counted.is_repeat then 'duplicate'
      end as final_code
    from counted
  ),
  stored as (
    insert into private.signals (
      generated_at, seq, confidence, price, stop_loss, take_profit, valid_until,
      account_no, trader_no, timeframe, action, symbol, metadata
    )
    select
      judged.generated_at, store_signals.account.last_seq + judged.number, judged.confidence,
      judged.price, judged.stop_loss, judged.take_profit, judged.valid_until,
      store_signals.account.account_no, judged.trader_no, judged.timeframe, judged.action,
      judged.symbol, judged.metadata
    from judged
    where judged.final_code is null
  )
  select
    count(*) filter (where judged.final_code is null),
    count(*) filter (where judged.final_code = 'duplicate'),
    count(*) filter (where judged.final_code <> 'duplicate'),
    min(judged.generated_at) filter (where judged.final_code is null),
    max(judged.generated_at) filter (where judged.final_code is null),
    coalesce(json_agg(
      json_build_object(
        'index', judged.index, 'code', judged.final_code, 'message', item_code.message)
      order by judged.index) filter (where judged.final_code is not null), '[]')
  into v_result
  from judged
  left join private.item_codes as item_code on item_code.code = judged.final_code;
  return v_result;
end
$$;

comment on function private.store_signals is
'Stores what of the candidates is valid, new and within the allowance, with consecutive seq, and
tells the counts and the code of every other. The caller holds the lock of the account.';

create function private.store_batch(
  account private.accounts,
  request_id uuid,
  payload_hash bigint,
  candidates private.candidate[]
)
returns json
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := private.opened_windows(store_batch.account);
  v_tier private.tiers;
  v_batch private.batches;
  v_result private.storage_result;
  v_day_left bigint;
  v_minute_left bigint;
begin
  select tier.* into v_tier from private.tiers as tier where tier.tier = v_account.tier;
  v_day_left := coalesce(v_tier.signals_per_day - v_account.day_used, 9223372036854775807);
  v_minute_left := coalesce(
    v_tier.signals_per_minute - v_account.minute_used, 9223372036854775807);
  -- The usual batch needs no judgement, and is stored at twice the rate.
  if cardinality(store_batch.candidates) <= least(v_day_left, v_minute_left)
    and not exists (
      select from unnest(store_batch.candidates) as each where each.code is not null) then
    v_result := private.store_all(v_account, store_batch.candidates);
  end if;
  if v_result is null then
    v_result := private.store_signals(
      v_account, store_batch.candidates, v_day_left, v_minute_left);
  end if;

  v_batch.account_no := v_account.account_no;
  v_batch.request_id := store_batch.request_id;
  v_batch.received_at := private.clock();
  v_batch.payload_hash := store_batch.payload_hash;
  v_batch.first_generated_at := v_result.first_generated_at;
  v_batch.last_generated_at := v_result.last_generated_at;
  v_batch.correlation_id := left(
    nullif(current_setting('request.headers', true), '')::json ->> 'x-correlation-id', 64);
  if v_result.accepted > 0 then
    v_batch.first_seq := v_account.last_seq + 1;
    v_batch.last_seq := v_account.last_seq + v_result.accepted;
  end if;
  v_batch.verdict := json_build_object(
    'request_id', v_batch.request_id, 'accepted', v_result.accepted,
    'duplicate', v_result.duplicate, 'rejected', v_result.rejected,
    'first_seq', v_batch.first_seq, 'last_seq', v_batch.last_seq, 'items', v_result.items);
  insert into private.batches select v_batch.*;

  update private.accounts as head
  set
    last_seq = v_account.last_seq + v_result.accepted,
    day_started = v_account.day_started,
    day_used = v_account.day_used + v_result.accepted,
    minute_started = v_account.minute_started,
    minute_used = v_account.minute_used + v_result.accepted
  where head.account_no = v_account.account_no;
  return v_batch.verdict;
end
$$;

comment on function private.store_batch is
'Stores the candidates, writes the ledger row and moves the head of the locked account.';

create function private.ingest_signals(
  request_id uuid,
  signals jsonb
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:write');
  v_payload_hash bigint := jsonb_hash_extended(ingest_signals.signals, 0);
  v_candidates private.candidate[];
  v_account private.accounts;
  v_verdict json;
begin
  perform private.require_batch(ingest_signals.request_id, ingest_signals.signals);
  v_candidates := private.parse_signals(v_account_id, ingest_signals.signals);
  v_account := private.lock_account(v_account_id);
  v_verdict := private.replayed_verdict(
    v_account.account_no, ingest_signals.request_id, v_payload_hash);
  if v_verdict is null then
    v_verdict := private.store_batch(
      v_account, ingest_signals.request_id, v_payload_hash, v_candidates);
  end if;
  return v_verdict;
end
$$;

comment on function private.ingest_signals is 'Body of public.ingest_signals.';

create function public.ingest_signals(
  request_id uuid,
  signals jsonb
)
returns json
language plpgsql
set search_path = ''
as $$
begin
  return private.ingest_signals(ingest_signals.request_id, ingest_signals.signals);
end
$$;

comment on function public.ingest_signals is
'Stores a batch of signals once and answers with its verdict. One bad signal never sinks the batch;
the same request_id gets the same verdict again and changes nothing.';

alter table private.batches enable row level security;
alter table private.item_codes enable row level security;

grant execute on function private.ingest_signals to authenticated;
grant execute on function public.ingest_signals to authenticated;
