-- Signals: one immutable row each, in daily partitions, until they are packed into segments.
-- Columns run from wide to narrow so that a row has no padding; two indexes serve all reads and the dedup.
-- Must never break: the natural key is unique, and no client role reaches the table's partitions.

create function private.timeframes()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    '1s', '5s', '10s', '15s', '30s', '1m', '3m', '5m', '10m', '15m', '30m', '45m',
    '1h', '2h', '3h', '4h', '6h', '8h', '12h', '1d', '3d', '1w', '1M'
  ]
$$;

comment on function private.timeframes is
'The bar sizes. A signal stores the position in this list: new ones go at its end.';

create function private.actions()
returns text[]
language sql
immutable
set search_path = ''
as $$ select array['enter_long', 'exit_long', 'enter_short', 'exit_short'] $$;

comment on function private.actions is 'The actions. A signal stores the position in this list.';

create table private.signals (
  generated_at timestamptz not null,
  seq bigint not null,
  confidence double precision not null,
  price double precision not null,
  stop_loss double precision,
  take_profit double precision,
  valid_until timestamptz,
  account_no integer not null,
  trader_no integer not null,
  timeframe smallint not null,
  action smallint not null,
  symbol text collate "C" not null,
  metadata jsonb,
  constraint natural_key_is_unique
  primary key (account_no, generated_at, trader_no, symbol, timeframe),
  constraint seq_is_positive check (seq > 0),
  constraint confidence_is_between_0_and_1 check (confidence between 0 and 1),
  constraint timeframe_is_a_position check (timeframe > 0),
  constraint action_is_a_position check (action > 0),
  constraint valid_until_is_after_generated_at check (valid_until > generated_at)
) partition by range (generated_at);

create index signals_account_no_seq_idx on private.signals (account_no, seq);
-- None by symbol or trader: one on (account_no, symbol, generated_at) takes 32 bytes a signal when just
-- built and 50 when it has grown, of 200 that a signal may take in all. Instead the primary key's index is
-- asked for these too (private.heap_signals): a rare symbol costs its entries of the time, and no rows.

comment on table private.signals is
'Every signal, by day of generated_at. Rows are inserted by ingest_signals and never changed.';
comment on column private.signals.seq is 'Gap-free per account, in commit order: the cursor of every sync.';
comment on column private.signals.timeframe is
'Position in private.timeframes(), from 1.';
comment on column private.signals.action is
'Position in private.actions(), from 1.';

-- No foreign keys: the ingest function joins the caller's own active traders, and neither accounts
-- nor traders are ever deleted; a key check per row would cost a tenth of the write rate.

create function private.signal_id(
  account_id uuid,
  trader_id uuid,
  symbol text,
  timeframe text,
  generated_at timestamptz
)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
declare
  v_hash bytea := substr(sha256(convert_to(
    account_id || e'\n' || trader_id || e'\n' || symbol || e'\n' || timeframe || e'\n'
    || (extract(epoch from generated_at) * 1000000)::bigint, 'UTF8')), 1, 16);
begin
  return encode(
    set_byte(
      set_byte(v_hash, 6, get_byte(v_hash, 6) & 15 | 128),
      8, get_byte(v_hash, 8) & 63 | 128),
    'hex')::uuid;
end
$$;

comment on function private.signal_id is
'UUID version 8 of the natural key: the first 16 bytes of the SHA-256 of account_id, trader_id,
symbol, timeframe and generated_at in microseconds since 1970, joined by newlines.';

alter table private.signals enable row level security;

create policy members_read_own_signals on private.signals
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant execute on function private.timeframes to authenticated, service_role;
grant execute on function private.actions to authenticated, service_role;
grant execute on function private.signal_id to authenticated, service_role;
grant select on private.signals to authenticated, service_role;
