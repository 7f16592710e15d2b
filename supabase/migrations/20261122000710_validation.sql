-- Validation: what a signal may hold, decided for a whole batch in one statement.
-- Runs before the account is locked, so it may take its time and see a trader that is archived since.
-- Must never break: one bad signal never sinks its batch; it gets the code of the first rule it breaks.

create type private.candidate as (
  index integer,
  trader_no integer,
  trader_id uuid,
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
  oldest timestamptz,
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
      trader.trader_id,
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
          -- By bytes: trimming characters takes three times as long.
        and btrim(convert_to(field.symbol, 'UTF8'), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
            'abcdefghijklmnopqrstuvwxyz0123456789._/:=@#!&^+-'::bytea) = '') is not true
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
        when value.generated_at < read_signals.oldest then 'stale'
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
        raw.element ->> 'confidence' as confidence,
        raw.element ->> 'price' as price,
        raw.element ->> 'stop_loss' as stop_loss,
        raw.element ->> 'take_profit' as take_profit,
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
          when jsonb_typeof(field.element -> 'confidence') = 'number' and (
            not read_signals.careful or pg_input_is_valid(field.confidence, 'double precision'))
            then field.confidence::double precision
        end as confidence,
        case
          when jsonb_typeof(field.element -> 'price') = 'number' and (
            not read_signals.careful or pg_input_is_valid(field.price, 'double precision'))
            then field.price::double precision
        end as price,
        case
          when jsonb_typeof(field.element -> 'stop_loss') = 'number' and (
            not read_signals.careful or pg_input_is_valid(field.stop_loss, 'double precision'))
            then field.stop_loss::double precision
        end as stop_loss,
        case
          when jsonb_typeof(field.element -> 'take_profit') = 'number' and (
            not read_signals.careful or pg_input_is_valid(field.take_profit, 'double precision'))
            then field.take_profit::double precision
        end as take_profit,
        case
          when not read_signals.careful or pg_input_is_valid(field.valid_until, 'timestamptz')
            then field.valid_until::timestamptz
        end as valid_until
      offset 0
    ) as value
    left join (
      select trader.trader_no, trader.trader_id, trader.trader_id::text as written
      from private.traders as trader
      where trader.account_no = v_account_no and trader.archived_at is null
    ) as trader on trader.written = lower(field.trader_id collate "C")
  );
end
$$;

comment on function private.read_signals is
'Validates a batch whose signals may be as old as oldest: one candidate a signal, with the code of the
first rule it breaks. Unless it is careful, a value of the wrong kind raises a data exception instead.';

create function private.parse_signals(
  account_id uuid,
  signals jsonb,
  oldest timestamptz default private.clock() - interval '7 days'
)
returns private.candidate[]
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Most batches hold no value of a wrong kind; not to ask for it first saves a tenth of the time.
  return private.read_signals(
    parse_signals.account_id, parse_signals.signals, parse_signals.oldest, false);
exception
  when data_exception then
    return private.read_signals(
      parse_signals.account_id, parse_signals.signals, parse_signals.oldest, true);
end
$$;

comment on function private.parse_signals is
'Validates a batch: one candidate a signal, with the code of the first rule it breaks.
Strings are compared as they are written, so the answer is the same in SQL, TypeScript and Python.';
