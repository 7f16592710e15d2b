-- The ledger: one row per answered request, from which a replay gets the same answer again.
-- Kept 14 days, by week; after that a batch sent again is told by the natural keys of its signals.
-- Must never break: under the lock of the account, a request_id is written once.

create table private.batches (
  received_at timestamptz not null,
  transaction_id xid8 not null default pg_current_xact_id(),
  payload_hash bigint not null,
  first_seq bigint,
  last_seq bigint,
  first_generated_at timestamptz,
  last_generated_at timestamptz,
  last_valid_until timestamptz,
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

create index batches_transaction_id_idx on private.batches (transaction_id);

comment on table private.batches is
'The ledger: one row per answered request, with what a replay needs to give its verdict again.';
comment on column private.batches.transaction_id is
'The transaction that wrote the row. Rows below pg_snapshot_xmin are all there: what a job reads next.';
comment on column private.batches.payload_hash is
'jsonb_hash_extended of the signals: tells a replay from a request_id used twice by mistake. The
function may change with a major version of PostgreSQL; a batch is not retried for that long.';
comment on column private.batches.first_generated_at is
'Earliest generated_at of the accepted signals; with last_generated_at the span that a broadcast reads.';
comment on column private.batches.last_valid_until is
'Latest valid_until of the accepted signals; null when none of them expires.';
comment on column private.batches.correlation_id is
'The x-correlation-id of the request: the same id is in the logs of the edge function.';
comment on column private.batches.refused is
'What was not accepted, as [[index, code], ...]; null when all was.';

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
('stale', 'generated_at is more than 7 days ago: load history with an import, which goes back as far as the tier keeps signals.'),
('in_future', 'generated_at is more than 1 minute ahead of the database clock: check the clock of this machine.'),
('unknown_trader', 'No active trader of this account has this trader_id: create it with create_trader.'),
('duplicate', 'A signal with the same trader, symbol, timeframe and generated_at is already stored.'),
('rate_limited', 'The account''s allowance for this minute is used up: send it again in the next minute.'),
('quota_exceeded', 'The account''s allowance for this day (UTC) is used up: it starts anew at 00:00 UTC.');

create function private.verdict_of(
  request_id uuid,
  first_seq bigint,
  last_seq bigint,
  refused jsonb
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_items json := json_build_array();
  v_refused bigint := 0;
  v_duplicate bigint := 0;
begin
  if verdict_of.refused is not null then
    select
      json_agg(
        json_build_object(
          'index', item.value -> 0, 'code', item_code.code, 'message', item_code.message)
        order by item.place),
      count(*), count(*) filter (where item_code.code in ('duplicate', 'duplicate_change'))
    into v_items, v_refused, v_duplicate
    from jsonb_array_elements(verdict_of.refused) with ordinality as item (value, place)
    inner join private.item_codes as item_code on item_code.code = item.value ->> 1;
  end if;
  return json_build_object(
    'request_id', verdict_of.request_id,
    'accepted', coalesce(verdict_of.last_seq - verdict_of.first_seq + 1, 0),
    'duplicate', v_duplicate, 'rejected', v_refused - v_duplicate,
    'first_seq', verdict_of.first_seq, 'last_seq', verdict_of.last_seq, 'items', v_items);
end
$$;

comment on function private.verdict_of is
'The answer to a batch, or to a request to advance signals: always the same bytes. refused is what was
not accepted, as [[index, code], ...], or null.';

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
  v_now timestamptz := private.clock();
  v_batch private.batches;
begin
  -- A replay may have begun before the request that it repeats: hence the day ahead.
  select batch.* into v_batch
  from private.batches as batch
  where batch.account_no = replayed_verdict.account_no
    and batch.request_id = replayed_verdict.request_id
    and batch.received_at > v_now - interval '14 days'
    and batch.received_at < v_now + interval '1 day';
  if not found then
    return null;
  end if;
  if v_batch.payload_hash <> replayed_verdict.payload_hash then
    perform private.raise_error(
      409, 'request_id_reused',
      'Cannot take the batch: its request_id was used for a different batch.',
      'Use a new request_id for a new batch.');
  end if;
  return private.verdict_of(
    v_batch.request_id, v_batch.first_seq, v_batch.last_seq, v_batch.refused);
end
$$;

comment on function private.replayed_verdict is
'The verdict given for this request_id in the last 14 days, or null; PT409 when the signals were
others.';

alter table private.batches enable row level security;
alter table private.item_codes enable row level security;
