-- Segments: signals of one account packed into arrays, a row for a thousand or more of them.
-- A signal is in the table signals or in one segment; the view and functions here read both.
-- Must never break: whoever reads through them sees each signal exactly once, wherever it is. A segment
-- lies in one month and in one block of seq: reads end their search there.

create function private.seq_block()
returns bigint
language sql
immutable
set search_path = ''
as 'select 262143';

comment on function private.seq_block is
'The bits of seq in which the signals of a segment may differ: seq | seq_block() is the last seq of the
block that seq is in. So a read by seq knows where in the index to end.';

create table private.segments (
  account_no integer not null,
  signals integer not null,
  segment_no bigint generated always as identity,
  first_generated_at timestamptz not null,
  last_generated_at timestamptz not null,
  first_seq bigint not null,
  last_seq bigint not null,
  packed_at timestamptz not null default private.clock(),
  confidence_min double precision not null,
  confidence_max double precision not null,
  confidence_sum double precision not null,
  price_min double precision not null,
  price_max double precision not null,
  price_sum double precision not null,
  price_first double precision not null,
  price_last double precision not null,
  merged boolean not null default false,
  tier text not null,
  trader_nos integer [] not null,
  symbols text [] collate "C" not null,
  timeframes smallint [] not null,
  actions smallint [] not null,
  generated_at_values timestamptz [] compression pglz not null,
  seq_offsets bigint [] compression pglz not null,
  trader_no_values integer [] compression pglz not null,
  symbol_positions smallint [] compression pglz not null,
  timeframe_values smallint [] compression pglz not null,
  action_values smallint [] compression pglz not null,
  confidence_values double precision [] compression pglz not null,
  price_values double precision [] compression pglz not null,
  stop_loss_values double precision [] compression pglz,
  take_profit_values double precision [] compression pglz,
  valid_for_values interval [] compression pglz,
  metadata_values jsonb [] compression pglz,
  primary key (account_no, last_generated_at, first_generated_at, segment_no, tier),
  constraint signals_is_positive check (signals > 0),
  constraint times_are_in_one_month check (
    first_generated_at <= last_generated_at
    and date_trunc('month', first_generated_at at time zone 'utc')
    = date_trunc('month', last_generated_at at time zone 'utc')
  ),
  constraint seq_range_is_not_empty check (first_seq <= last_seq),
  constraint seqs_are_in_one_block check (
    first_seq | private.seq_block() = last_seq | private.seq_block()
  )
) partition by list (tier);

-- Not a range type with GiST: its operators are not leakproof, so that row-level security would
-- keep them from the index.
create index segments_account_no_first_generated_at_idx
on private.segments (account_no, first_generated_at, last_generated_at);
create index segments_account_no_seq_idx on private.segments (account_no, last_seq, first_seq);
create index segments_unmerged_idx on private.segments (account_no, first_generated_at)
where not merged;

create table private.segments_free partition of private.segments
for values in ('free') partition by range (first_generated_at);
create table private.segments_pro partition of private.segments
for values in ('pro') partition by range (first_generated_at);
create table private.segments_elite partition of private.segments
for values in ('elite') partition by range (first_generated_at);

create table private.segments_free_default partition of private.segments_free default;
create table private.segments_pro_default partition of private.segments_pro default;
create table private.segments_elite_default partition of private.segments_elite default;

comment on table private.segments is
'Packed signals of one account. The n-th element of every array of values belongs to the n-th signal
in the order of generated_at and seq. Segments of an account may overlap in time and in seq.';
comment on column private.segments.signals is 'How many signals it holds.';
comment on column private.segments.first_seq is 'The lowest seq, of whichever signal.';
comment on column private.segments.tier is
'The account''s tier when its signals were packed: how long they are kept goes by it.';
comment on column private.segments.merged is
'False for a warm segment, which will be merged into larger ones; true for a cold one.';
comment on column private.segments.trader_nos is 'The traders that occur, in order.';
comment on column private.segments.symbols is
'The symbols that occur, in order; symbol_positions are positions in it, from 1.';
comment on column private.segments.seq_offsets is
'seq less (first_seq + position - 1): mostly 0, which costs next to nothing.';
comment on column private.segments.stop_loss_values is
'Null when no signal of the segment has one; so are the other arrays that may be null.';
comment on column private.segments.valid_for_values is
'valid_until less generated_at in hours and below, never in days: no time zone changes it.';

create function private.unpacked_signals(
  segment private.segments,
  first_position integer,
  last_position integer
)
returns setof private.signals
language sql
stable
rows 1000
set search_path = ''
as $$
  select
    value.generated_at, value.seq, value.confidence, value.price, value.stop_loss,
    value.take_profit, value.generated_at + value.valid_for, segment.account_no, value.trader_no,
    value.timeframe, value.action, segment.symbols[value.symbol_position], value.metadata
  from (
    -- The arrays are read side by side, and end together: a null one is null for every signal.
    select
      unnest(segment.generated_at_values[first_position:last_position]) as generated_at,
      unnest(segment.seq_offsets[first_position:last_position]) + segment.first_seq - 1
        + generate_series(first_position, last_position) as seq,
      unnest(segment.confidence_values[first_position:last_position]) as confidence,
      unnest(segment.price_values[first_position:last_position]) as price,
      unnest(segment.stop_loss_values[first_position:last_position]) as stop_loss,
      unnest(segment.take_profit_values[first_position:last_position]) as take_profit,
      unnest(segment.valid_for_values[first_position:last_position]) as valid_for,
      unnest(segment.trader_no_values[first_position:last_position]) as trader_no,
      unnest(segment.timeframe_values[first_position:last_position]) as timeframe,
      unnest(segment.action_values[first_position:last_position]) as action,
      unnest(segment.symbol_positions[first_position:last_position]) as symbol_position,
      unnest(segment.metadata_values[first_position:last_position]) as metadata
  ) as value
$$;

comment on function private.unpacked_signals is
'The signals of a segment from one position (from 1) to another, in the order of generated_at and
seq.';

create view private.stored_signals
with (security_invoker = true)
as
select
  signal.generated_at, signal.seq, signal.confidence, signal.price, signal.stop_loss,
  signal.take_profit, signal.valid_until, signal.account_no, signal.trader_no, signal.timeframe,
  signal.action, signal.symbol, signal.metadata
from private.signals as signal
union all
select
  signal.generated_at, signal.seq, signal.confidence, signal.price, signal.stop_loss,
  -- The segment's own account_no: a condition on it finds the segments by index.
  signal.take_profit, signal.valid_until, segment.account_no, signal.trader_no, signal.timeframe,
  signal.action, signal.symbol, signal.metadata
from private.segments as segment
cross join lateral private.unpacked_signals(segment, 1, segment.signals) as signal;

comment on view private.stored_signals is
'Every signal, packed or not, with the columns of private.signals. Fast by account_no only.';

create function private.signals_by_seq(
  account_no integer,
  first_seq bigint,
  last_seq bigint
)
returns setof private.signals
language plpgsql
stable
set search_path = ''
-- One plan for all: to plan a year of partitions anew locks all of their indexes, too.
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
    select signal.*
    from private.signals as signal
    where signal.account_no = signals_by_seq.account_no
      and signal.seq between signals_by_seq.first_seq and signals_by_seq.last_seq
    union all
    select signal.*
    from private.segments as segment
    cross join lateral (
      select min(element.position)::integer as first, max(element.position)::integer as last
      from unnest(segment.seq_offsets) with ordinality as element (value, position)
      where segment.first_seq + element.position - 1 + element.value
        between signals_by_seq.first_seq and signals_by_seq.last_seq
    ) as found
    cross join lateral private.unpacked_signals(segment, found.first, found.last) as signal
    where segment.account_no = signals_by_seq.account_no
      and segment.last_seq >= signals_by_seq.first_seq
      and segment.last_seq <= signals_by_seq.last_seq | private.seq_block()
      and segment.first_seq <= signals_by_seq.last_seq
      and signal.seq between signals_by_seq.first_seq and signals_by_seq.last_seq;
end
$$;

comment on function private.signals_by_seq is
'The signals of an account from first_seq to last_seq, packed or not, in no order.';

create function private.signals_by_time(
  account_no integer,
  from_time timestamptz,
  to_time timestamptz
)
returns setof private.signals
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
    select signal.*
    from private.signals as signal
    where signal.account_no = signals_by_time.account_no
      and signal.generated_at >= signals_by_time.from_time
      and signal.generated_at < signals_by_time.to_time
    union all
    select signal.*
    from private.segments as segment
    -- The times are in order, so width_bucket finds by bisection how many come before another.
    cross join lateral (
      select
        1 + width_bucket(
          signals_by_time.from_time - interval '1 microsecond', segment.generated_at_values
        ) as first,
        width_bucket(
          signals_by_time.to_time - interval '1 microsecond', segment.generated_at_values
        ) as last
    ) as found
    cross join lateral private.unpacked_signals(segment, found.first, found.last) as signal
    where segment.account_no = signals_by_time.account_no
      and segment.last_generated_at >= signals_by_time.from_time
      and segment.first_generated_at < signals_by_time.to_time
      -- A segment lies in one month: this leaves out the partitions of the months before.
      and segment.first_generated_at >= date_trunc('month', signals_by_time.from_time, 'utc');
end
$$;

comment on function private.signals_by_time is
'The signals of an account generated from from_time (inclusive) to to_time (exclusive), packed or
not, in no order.';

create function private.shown_signals(signals private.signals [])
returns table (
  signal_id uuid,
  seq bigint,
  trader_id uuid,
  symbol text,
  timeframe text,
  generated_at timestamptz,
  action text,
  confidence double precision,
  price double precision,
  stop_loss double precision,
  take_profit double precision,
  valid_until timestamptz,
  metadata jsonb,
  account_id uuid
)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
-- No two signals have the same id, so to remember the last ones is a fifth of the work for nothing.
set enable_memoize = off
as $$
#variable_conflict use_column
begin
  return query
    -- Once, not for each signal: an account may have thousands of traders.
    with named as materialized (
      select trader.trader_no, trader.trader_id
      from private.traders as trader
      where trader.trader_no = any(array(
        select distinct signal.trader_no from unnest(shown_signals.signals) as signal))
    )
    select
      -- As private.signal_id makes it, which would take longer than all the rest when called.
      encode(
        set_byte(
          set_byte(hash.bytes, 6, get_byte(hash.bytes, 6) & 15 | 128),
          8, get_byte(hash.bytes, 8) & 63 | 128),
        'hex')::uuid,
      signal.seq, trader.trader_id, signal.symbol, word.timeframe, signal.generated_at, word.action,
      signal.confidence, signal.price, signal.stop_loss, signal.take_profit, signal.valid_until,
      signal.metadata, account.account_id
    from unnest(shown_signals.signals) as signal
    inner join private.accounts as account on account.account_no = signal.account_no
    left join named as trader on trader.trader_no = signal.trader_no
    cross join lateral (
      select
        (private.actions())[signal.action] as action,
        (private.timeframes())[signal.timeframe] as timeframe
      offset 0
    ) as word
    cross join lateral (
      select substr(sha256(convert_to(
        account.account_id || e'\n' || trader.trader_id || e'\n' || signal.symbol || e'\n'
        || word.timeframe || e'\n'
        || (extract(epoch from signal.generated_at) * 1000000)::bigint, 'UTF8')), 1, 16) as bytes
      offset 0
    ) as hash;
end
$$;

comment on function private.shown_signals is
'The given rows as clients see them (the columns of public.signals), in no order.';

create view public.signals
with (security_invoker = true)
as
select
  private.signal_id(
    account.account_id, trader.trader_id, signal.symbol, word.timeframe, signal.generated_at
  ) as signal_id,
  signal.seq,
  trader.trader_id,
  signal.symbol,
  word.timeframe,
  signal.generated_at,
  word.action,
  signal.confidence,
  signal.price,
  signal.stop_loss,
  signal.take_profit,
  signal.valid_until,
  signal.metadata,
  account.account_id
from private.stored_signals as signal
inner join private.accounts as account on account.account_no = signal.account_no
-- Every signal has its trader. An inner join would let the planner think that most have none, and
-- read and sort all of an account's signals for one page.
left join private.traders as trader on trader.trader_no = signal.trader_no
cross join lateral (
  select
    (private.actions())[signal.action] as action,
    (private.timeframes())[signal.timeframe] as timeframe
) as word;

comment on view public.signals is
'The signals of the caller''s account (of every account, for service_role).';
comment on column public.signals.signal_id is
'UUID version 8 of the natural key: the first 16 bytes of the SHA-256 of account_id, trader_id,
symbol, timeframe and generated_at in microseconds since 1970, joined by newlines.';

alter table private.segments enable row level security;
-- Row-level security is not inherited: without a grant and a policy of its own, a partition shows
-- no row to anyone who reaches it.
alter table private.segments_free enable row level security;
alter table private.segments_pro enable row level security;
alter table private.segments_elite enable row level security;
alter table private.segments_free_default enable row level security;
alter table private.segments_pro_default enable row level security;
alter table private.segments_elite_default enable row level security;

create policy members_read_own_segments on private.segments
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant select on private.segments, private.stored_signals
to authenticated, service_role;
grant select on public.signals to authenticated, service_role;
grant execute on function private.seq_block to authenticated, service_role;
grant execute on function private.unpacked_signals to authenticated, service_role;
grant execute on function private.signals_by_seq to authenticated, service_role;
grant execute on function private.signals_by_time to authenticated, service_role;
grant execute on function private.shown_signals to authenticated, service_role;
