-- Events: what became of a signal after it was generated, one appended row for each change.
-- A signal never changes; its status is that of its last event, or expired by its valid_until.
-- Must never break: event seq has no gap per account, and no status follows one that ends a signal.

create function private.statuses()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array['generated', 'analyzed', 'executed', 'closed', 'expired', 'cancelled', 'rejected']
$$;

comment on function private.statuses is
'The statuses of a signal. An event stores the position in this list: new ones go at its end.';

create function private.close_reasons()
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array[
    'take_profit', 'stop_loss', 'trailing_stop', 'time_limit', 'exit_signal', 'reversed', 'manual',
    'liquidation'
  ]
$$;

comment on function private.close_reasons is
'Why a signal is closed. An event stores the position in this list: new ones go at its end.';

create table private.transitions (
  from_status text not null,
  to_status text not null,
  primary key (from_status, to_status),
  constraint from_status_is_known check (from_status = any(private.statuses())),
  constraint to_status_is_known check (to_status = any(private.statuses()))
);

comment on table private.transitions is
'Which status may follow which. What is not here is refused; expired follows by valid_until alone.';

insert into private.transitions (from_status, to_status)
values
('generated', 'analyzed'),
('generated', 'executed'),
('generated', 'expired'),
('generated', 'cancelled'),
('generated', 'rejected'),
('analyzed', 'executed'),
('analyzed', 'expired'),
('analyzed', 'cancelled'),
('analyzed', 'rejected'),
('executed', 'closed');

create table private.signal_events (
  generated_at timestamptz not null,
  seq bigint not null,
  signal_seq bigint not null,
  occurred_at timestamptz not null,
  received_at timestamptz not null,
  entry_price double precision,
  exit_price double precision,
  return double precision,
  fees double precision,
  account_no integer not null,
  trader_no integer,
  timeframe smallint,
  status smallint not null,
  close_reason smallint,
  symbol text collate "C",
  reason text,
  expired_seqs int8multirange,
  primary key (account_no, signal_seq, seq, generated_at),
  constraint seq_is_positive check (seq > 0),
  constraint status_is_a_position_after_generated check (status > 1),
  constraint an_expiry_names_seqs_and_a_change_its_signal check (
    (status = 5) = (expired_seqs is not null)
    and (status = 5) = (num_nonnulls(trader_no, symbol, timeframe) = 0)
    and num_nonnulls(trader_no, symbol, timeframe) in (0, 3)
  ),
  constraint only_executed_has_an_entry_price check (status = 3 or entry_price is null),
  constraint closed_has_an_outcome check (
    (status = 4) = (num_nonnulls(exit_price, close_reason) = 2)
    and (status = 4 or num_nonnulls(exit_price, close_reason, return, fees) = 0)
  )
) partition by range (generated_at);

create index signal_events_account_no_seq_idx on private.signal_events (account_no, seq);

comment on table private.signal_events is
'The lifecycle of signals: one row a change, in one order per account; and one row for many signals
that expired together. Rows are appended by advance_signals and expiry_step and never changed.';
comment on column private.signal_events.generated_at is
'Of the signal, so that an event goes when its signal does; of the earliest one for an expiry.';
comment on column private.signal_events.seq is
'Gap-free per account, in commit order, and apart from the seq of signals: the cursor of query_events.';
comment on column private.signal_events.signal_seq is
'seq of the signal; the lowest of expired_seqs for an expiry.';
comment on column private.signal_events.occurred_at is
'When it happened, by whoever reports it; for an expiry, the time up to which valid_until has passed.';
comment on column private.signal_events.entry_price is 'The price at which it was executed.';
comment on column private.signal_events.exit_price is 'The price at which it was closed.';
comment on column private.signal_events.return is
'Result as a fraction of what was put in, after fees: 0.05 is a gain of 5 %.';
comment on column private.signal_events.fees is
'All fees of the trade, of entry and exit, in the quote currency; negative for a rebate.';
comment on column private.signal_events.timeframe is 'Position in private.timeframes(), from 1.';
comment on column private.signal_events.status is 'Position in private.statuses(), from 1.';
comment on column private.signal_events.close_reason is
'Position in private.close_reasons(), from 1.';
comment on column private.signal_events.expired_seqs is
'The seq of the signals that an expiry names; null for a change of one signal.';

create function private.status_at(
  last_status smallint,
  valid_until timestamptz,
  moment timestamptz
)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  if valid_until <= moment and coalesce(last_status, 1) <= 2 then
    return 'expired';
  end if;
  return (private.statuses())[coalesce(last_status, 1)];
end
$$;

comment on function private.status_at is
'The status at a moment of a signal with this last event: generated (1, or none) and analyzed (2) end
when valid_until is reached.';

create function private.statuses_of(signals private.signals[])
returns table (
  account_no integer,
  generated_at timestamptz,
  seq bigint,
  status text,
  status_since timestamptz,
  archived boolean,
  entry_price double precision,
  exit_price double precision,
  close_reason text,
  return double precision,
  fees double precision,
  reason text
)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
#variable_conflict use_column
begin
  return query
    select
      signal.account_no,
      signal.generated_at,
      signal.seq,
      word.status,
      case word.status
        when 'generated' then signal.generated_at
        when 'expired' then signal.valid_until
        else event.occurred_at
      end,
      signal.generated_at < private.clock() - interval '7 days',
      event.entry_price,
      event.exit_price,
      (private.close_reasons())[event.close_reason],
      event.return,
      event.fees,
      event.reason
    from unnest(statuses_of.signals) as signal
    cross join lateral (
      -- A signal has each status once: of the columns of one status, one event at most has a value.
      select
        (array_agg(change.status order by change.seq desc))[1] as status,
        (array_agg(change.occurred_at order by change.seq desc))[1] as occurred_at,
        (array_agg(change.reason order by change.seq desc))[1] as reason,
        max(change.entry_price) as entry_price,
        max(change.exit_price) as exit_price,
        max(change.close_reason) as close_reason,
        max(change.return) as return,
        max(change.fees) as fees
      from private.signal_events as change
      where change.account_no = signal.account_no
        and change.signal_seq = signal.seq
        and change.generated_at = signal.generated_at
        and change.expired_seqs is null
    ) as event
    cross join lateral private.status_at(event.status, signal.valid_until, private.clock())
      as word (status);
end
$$;

comment on function private.statuses_of is
'The status and outcome of the given signals, a row for each, in no order. archived tells that a
signal is older than 7 days; its status stays what it is.';

create view public.signal_events
with (security_invoker = true)
as
select
  event.seq,
  word.status,
  event.signal_seq,
  case
    when event.expired_seqs is null then private.signal_id(
      account.account_id, trader.trader_id, event.symbol, word.timeframe, event.generated_at)
  end as signal_id,
  trader.trader_id,
  event.symbol,
  word.timeframe,
  case when event.expired_seqs is null then event.generated_at end as generated_at,
  event.occurred_at,
  event.received_at,
  event.entry_price,
  event.exit_price,
  word.close_reason,
  event.return,
  event.fees,
  event.reason,
  case
    when event.expired_seqs is not null then (
      select array_agg(array[lower(part), upper(part) - 1] order by part)
      from unnest(event.expired_seqs) as part)
  end as expired_seqs,
  account.account_id
from private.signal_events as event
inner join private.accounts as account on account.account_no = event.account_no
left join private.traders as trader on trader.trader_no = event.trader_no
cross join lateral (
  select
    (private.statuses())[event.status] as status,
    (private.timeframes())[event.timeframe] as timeframe,
    (private.close_reasons())[event.close_reason] as close_reason
) as word;

comment on view public.signal_events is
'The lifecycle of the signals of the caller''s account (of every account, for service_role).';
comment on column public.signal_events.seq is
'The event''s own seq: gap-free per account, in commit order.';
comment on column public.signal_events.expired_seqs is
'For status expired: the first and last seq of each run of signals that expired. Such an event names
no single signal.';

create function private.events_digest(
  account_no integer,
  first_seq bigint,
  last_seq bigint
)
returns bytea
language sql
stable
set search_path = ''
set timezone = 'UTC'
as $$
  select sha256(string_agg(record_send(row(
    event.seq, event.signal_seq, trader.trader_id, event.symbol,
    (private.timeframes())[event.timeframe], event.generated_at, (private.statuses())[event.status],
    event.occurred_at, event.received_at, event.entry_price, event.exit_price,
    (private.close_reasons())[event.close_reason], event.return, event.fees, event.reason,
    event.expired_seqs::text)), '' order by event.seq))
  from private.signal_events as event
  left join private.traders as trader on trader.trader_no = event.trader_no
  where event.account_no = events_digest.account_no
    and event.seq between events_digest.first_seq and events_digest.last_seq
$$;

comment on function private.events_digest is
'SHA-256 of the stored events from first_seq to last_seq: what the audit link of a batch of events
holds, and what a check of the chain compares with it. The bytes are in docs/audit.md.';

create function private.events_told(
  account private.accounts,
  first_seq bigint,
  last_seq bigint
)
returns jsonb
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_payload jsonb := jsonb_build_object(
    'first_seq', first_seq, 'last_seq', last_seq, 'count', last_seq - first_seq + 1,
    'broadcast_at', clock_timestamp());
  v_changes jsonb;
begin
  if last_seq - first_seq < 20 then
    select jsonb_agg(to_jsonb(event) - 'account_id' order by event.seq)
    into v_changes
    from public.signal_events as event
    where event.account_id = account.account_id
      and event.seq between events_told.first_seq and events_told.last_seq;
  end if;
  -- An expiry may name 100 runs of seq. Hosted Supabase drops what is larger than 256 KB.
  if octet_length(v_changes::text) <= 65000 then
    v_payload := v_payload || jsonb_build_object('changes', v_changes);
  end if;
  return v_payload;
end
$$;

comment on function private.events_told is
'What is broadcast of new events: their seq range, and the events themselves when they are at most 20
and fit in 64 KB.';

create function private.tell_events(
  account private.accounts,
  first_seq bigint,
  last_seq bigint
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform private.send_broadcast(
    private.events_told(account, first_seq, last_seq), 'signals_advanced',
    'account:' || account.account_id || ':signals');
end
$$;

comment on function private.tell_events is
'Broadcasts events to the private topic of their account.';

create function private.publish_events(
  account private.accounts,
  events bigint
)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := account;
  v_first_seq bigint := account.last_event_seq + 1;
  v_last_seq bigint := account.last_event_seq + events;
  v_first_generated_at timestamptz;
  v_last_generated_at timestamptz;
begin
  select min(event.generated_at), max(event.generated_at)
  into strict v_first_generated_at, v_last_generated_at
  from private.signal_events as event
  where event.account_no = account.account_no and event.seq between v_first_seq and v_last_seq;
  v_account.last_event_seq := v_last_seq;
  perform private.append_link(
    v_account, 'events', v_first_seq, v_last_seq, v_first_generated_at, v_last_generated_at,
    private.clock(), private.events_digest(v_account.account_no, v_first_seq, v_last_seq));
  perform private.broadcast_news(v_account.account_no, null, v_first_seq);
end
$$;

comment on function private.publish_events is
'Moves the account''s row past the events just stored (so many, from last_event_seq + 1), with their
link of the audit chain, and broadcasts them. The caller holds the lock of the account.';

create function private.events_with_signals(events public.signal_events[])
returns json[]
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_times timestamptz[] := (
    select array_agg(distinct event.generated_at order by event.generated_at)
    from unnest(events) as event
    where event.generated_at is not null);
begin
  return array(
    select (
      to_jsonb(event) - 'account_id' || jsonb_build_object('signal',
        to_jsonb(stored) - 'account_id' || jsonb_build_object('status', event.status)))::json
    from unnest(events) as event
    left join private.shown_signals(array(
      select signal
      from private.signals_at(
        private.caller_account_no('signals:read'), v_times) as signal
      where signal.seq = any(array(select event.signal_seq from unnest(events) as event))
    )) as stored on stored.seq = event.signal_seq and event.signal_id is not null
    order by event.seq);
end
$$;

comment on function private.events_with_signals is
'The given events as JSON, by seq, each with the signal that it is about: null for an expiry.';

create function private.query_events(
  after_seq bigint,
  page_size integer,
  with_signals boolean
)
returns json
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_events public.signal_events[];
begin
  if (after_seq >= 0 and page_size between 1 and 1000) is not true then
    perform private.raise_error(
      400, 'invalid_filter',
      'Cannot make the page: after_seq must be 0 or more, page_size from 1 to 1000.',
      'Begin with after_seq 0, and go on with the seq of the last event.');
  end if;
  v_events := array(
    select event
    from public.signal_events as event
    where event.seq > query_events.after_seq
    order by event.seq
    limit query_events.page_size);
  return json_build_object(
    'events', array_to_json(case
      when with_signals then private.events_with_signals(v_events)
      else array(
        select (to_jsonb(event) - 'account_id')::json
        from unnest(v_events) as event
        order by event.seq)
    end),
    'last_seq', coalesce((
      select account.last_event_seq from private.accounts as account
      where account.account_id = v_account_id), 0));
end
$$;

comment on function private.query_events is 'Body of public.query_events.';

create function public.query_events(
  after_seq bigint default 0,
  page_size integer default 100,
  with_signals boolean default false
)
returns json
language sql
stable
set search_path = ''
as 'select private.query_events(after_seq, page_size, with_signals)';

comment on function public.query_events is
'The lifecycle events of the caller''s signals that follow after_seq, by seq. last_seq is the account''s
in the same snapshot: an event with it is the last one so far. with_signals adds the signal to each.';

alter table private.transitions enable row level security;
alter table private.signal_events enable row level security;

create policy members_read_own_events on private.signal_events
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant select on private.signal_events to authenticated, service_role;
grant select on public.signal_events to authenticated, service_role;
grant execute on function private.statuses to authenticated, service_role;
grant execute on function private.close_reasons to authenticated, service_role;
grant execute on function private.status_at to authenticated, service_role;
grant execute on function private.statuses_of to authenticated, service_role;
grant execute on function private.events_with_signals to authenticated;
grant execute on function private.query_events to authenticated;
grant execute on function public.query_events to authenticated;
