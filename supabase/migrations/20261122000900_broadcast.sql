-- Live delivery: each answered batch that stored something is broadcast to its account's topic.
-- At once, or, where many accounts share a quota, together with the next ones after an interval.
-- Must never break: a broadcast is a hint and never fails an ingest; what is not told now is pending.

create table private.pending_broadcasts (
  due_at timestamptz not null,
  first_seq bigint,
  first_event_seq bigint,
  account_no integer primary key,
  failures integer not null default 0,
  trader_nos integer[] not null default '{}',
  last_error text,
  constraint failures_is_not_negative check (failures >= 0),
  constraint what_failed_is_pending check (
    failures = 0 or num_nonnulls(first_seq, first_event_seq) > 0
  )
);

create index pending_broadcasts_due_at_idx on private.pending_broadcasts (due_at);

comment on table private.pending_broadcasts is
'Accounts whose interval runs, or whose last broadcast failed, with what they have not told yet. Only
who holds the lock of the account (private.lock_account) writes its row.';
comment on column private.pending_broadcasts.due_at is 'Before this the account is not broadcast to.';
comment on column private.pending_broadcasts.first_seq is
'The first signal that has not been told: all from it to last_seq are told next. Null: none.';
comment on column private.pending_broadcasts.first_event_seq is 'The same for lifecycle events.';
comment on column private.pending_broadcasts.trader_nos is
'The traders with a channel of their own that have a signal in what is not told.';
comment on column private.pending_broadcasts.failures is 'How often it could not be told, in a row.';

create function private.send_broadcast(
  payload jsonb,
  event text,
  topic text
)
returns void
language plpgsql
set search_path = ''
-- realtime.messages has local times, and a caller may choose the time zone of a request.
set timezone = 'UTC'
as $$
begin
  -- A payload that is null is stored, and the server drops it.
  if jsonb_typeof(payload) is distinct from 'object' then
    raise exception 'the payload is not an object';
  end if;
  -- realtime.send makes a warning of every error, and undoes what it did: the topic that it had set,
  -- too. Only a version that sets none would have us look for the row, which is not free.
  perform set_config('realtime.topic', '', true);
  perform realtime.send(payload, event, topic, true);
  if current_setting('realtime.topic', true) is distinct from topic then
    if not exists (
      select from realtime.messages as message
      where message.inserted_at >= localtimestamp
        and message.topic = send_broadcast.topic
        and message.event = send_broadcast.event
        and message.payload - 'id' = send_broadcast.payload - 'id'
    ) then
      raise exception 'realtime.send has stored nothing; its warning in the log says why';
    end if;
  end if;
end
$$;

comment on function private.send_broadcast is
'Sends to a private topic as realtime.send does, but raises when nothing was stored to be sent.';

create function private.broadcast_payload(batch private.batches)
returns jsonb
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_payload jsonb := jsonb_build_object(
    'first_seq', batch.first_seq, 'last_seq', batch.last_seq,
    'count', batch.last_seq - batch.first_seq + 1, 'broadcast_at', clock_timestamp());
  v_now timestamptz;
  v_generated text;
  v_expired text;
  v_signals jsonb;
begin
  -- Carrying a signal costs the writer more than storing it (compared by scripts/bench ingest), and
  -- every socket a copy. Above 20 a reader fetches the page by seq, for several batches at once.
  -- 20 of the largest signals (2 KB of metadata each) are below 64 KB.
  if batch.last_seq - batch.first_seq < 20 then
    -- As they were stored: what became of them since is told behind them, as events.
    v_now := private.clock();
    v_generated := private.status_at(null, null, v_now);
    v_expired := private.status_at(null, v_now, v_now);
    select jsonb_agg(to_jsonb(told) order by told.seq)
    into v_signals
    from (
      select
        shown.signal_id, shown.seq, shown.trader_id, shown.symbol, shown.timeframe,
        shown.generated_at, shown.action, shown.confidence, shown.price, shown.stop_loss,
        shown.take_profit, shown.valid_until, shown.metadata,
        case when shown.valid_until <= v_now then v_expired else v_generated end as status,
        null as outcome
      from private.shown_signals(array(
        select signal
        from private.signals as signal
        where signal.account_no = batch.account_no
          and signal.seq between batch.first_seq and batch.last_seq
          and signal.generated_at between batch.first_generated_at and batch.last_generated_at
      )) as shown
    ) as told
    -- All or none: an import writes segments, not rows, and readers fetch it by seq.
    having count(*) = batch.last_seq - batch.first_seq + 1;
  end if;
  if v_signals is not null then
    v_payload := v_payload || jsonb_build_object('signals', v_signals);
  end if;
  return v_payload;
end
$$;

comment on function private.broadcast_payload is
'What is broadcast of a batch: its seq range, and the signals themselves when they are at most 20.';

create function private.has_signal_of(
  trader_no integer,
  batch private.batches
)
returns boolean
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return exists (
    select from private.signals as signal
    where signal.account_no = batch.account_no
      and signal.trader_no = has_signal_of.trader_no
      and signal.seq between batch.first_seq and batch.last_seq
      and signal.generated_at between batch.first_generated_at and batch.last_generated_at
  )
  -- An import writes segments.
  or exists (
    select from private.segments as segment
    where segment.account_no = batch.account_no
      and segment.last_seq between batch.first_seq and batch.last_seq
      and has_signal_of.trader_no = any(segment.trader_nos)
  );
end
$$;

comment on function private.has_signal_of is 'Whether a stored batch holds a signal of this trader.';

create function private.own_channels(batch private.batches)
returns integer[]
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  -- Most accounts have no such trader, and to look into the partitions for nothing is not free.
  return array(
    select trader.trader_no from private.traders as trader
    where trader.account_no = batch.account_no and trader.own_channel
      and private.has_signal_of(trader.trader_no, batch));
end
$$;

comment on function private.own_channels is
'The traders with a channel of their own that have a signal in a stored batch.';

create function private.tell_signals(
  account_id uuid,
  batch private.batches,
  trader_nos integer[]
)
returns void
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_payload jsonb := private.broadcast_payload(batch);
begin
  perform private.send_broadcast(
    v_payload, 'signals_ingested', 'account:' || tell_signals.account_id || ':signals');
  if cardinality(tell_signals.trader_nos) > 0 then
    perform private.send_broadcast(
      v_payload - 'signals', 'signals_ingested', 'trader:' || trader.trader_id || ':signals')
    from private.traders as trader
    where trader.trader_no = any(tell_signals.trader_nos);
  end if;
end
$$;

comment on function private.tell_signals is
'Broadcasts a batch to the private topic of its account, and its seq range to those of the traders.';

create function private.hold_broadcast(
  account_no integer,
  first_seq bigint,
  first_event_seq bigint,
  trader_nos integer[],
  error text
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  insert into private.pending_broadcasts as pending (
    account_no, due_at, first_seq, first_event_seq, trader_nos, failures, last_error
  )
  values (
    hold_broadcast.account_no,
    clock_timestamp() + case when error is null then interval '0' else interval '5 seconds' end,
    hold_broadcast.first_seq, hold_broadcast.first_event_seq, hold_broadcast.trader_nos,
    (error is not null)::integer, error
  )
  on conflict on constraint pending_broadcasts_pkey do update
  set
    due_at = case when error is null then pending.due_at else excluded.due_at end,
    first_seq = coalesce(pending.first_seq, excluded.first_seq),
    first_event_seq = coalesce(pending.first_event_seq, excluded.first_event_seq),
    trader_nos = pending.trader_nos || array(
      select unnest(excluded.trader_nos) except select unnest(pending.trader_nos)),
    failures = pending.failures + excluded.failures,
    last_error = coalesce(excluded.last_error, pending.last_error)
  -- The second batch that waits adds nothing.
  where excluded.failures > 0
    or pending.first_seq is null and excluded.first_seq is not null
    or pending.first_event_seq is null and excluded.first_event_seq is not null
    or not excluded.trader_nos <@ pending.trader_nos;
end
$$;

comment on function private.hold_broadcast is
'Notes what an account has to tell, from these seq on: as soon as its interval is over or, with the
error that kept it from being told, in 5 seconds again.';

create function private.tell_pending(account private.accounts)
returns boolean
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_pending private.pending_broadcasts;
  v_batch private.batches;
  v_interval interval := (select state.broadcast_interval from private.live_state as state);
begin
  select pending.* into v_pending
  from private.pending_broadcasts as pending
  where pending.account_no = account.account_no and pending.due_at <= v_now;
  if not found then
    return false;
  end if;
  if v_pending.first_seq is not null then
    v_batch.account_no := account.account_no;
    v_batch.first_seq := v_pending.first_seq;
    v_batch.last_seq := account.last_seq;
    v_batch.first_generated_at := '-infinity';
    v_batch.last_generated_at := 'infinity';
    perform private.tell_signals(account.account_id, v_batch, v_pending.trader_nos);
  end if;
  if v_pending.first_event_seq is not null then
    perform private.tell_events(account, v_pending.first_event_seq, account.last_event_seq);
  end if;
  if v_interval = interval '0' or num_nonnulls(v_pending.first_seq, v_pending.first_event_seq) = 0 then
    delete from private.pending_broadcasts as pending
    where pending.account_no = account.account_no;
  else
    update private.pending_broadcasts as pending
    set
      due_at = v_now + v_interval, first_seq = null, first_event_seq = null, trader_nos = '{}',
      failures = 0, last_error = null
    where pending.account_no = account.account_no;
  end if;
  return true;
exception
  when others then
    raise warning 'Cannot broadcast what is pending: %; readers catch up by seq.', sqlerrm;
    perform private.hold_broadcast(
      account.account_no, v_pending.first_seq, v_pending.first_event_seq, v_pending.trader_nos,
      sqlerrm);
    return true;
end
$$;

comment on function private.tell_pending is
'Broadcasts what the account has not told, signals before their events, if that is due, and begins its
next interval; false when nothing is due. The caller holds the lock of the account.';

create function private.note_failure(
  account_no integer,
  first_seq bigint,
  first_event_seq bigint,
  trader_nos integer[],
  error text
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  raise warning 'Cannot broadcast what is new: %; readers catch up by seq.', error;
  perform private.hold_broadcast(account_no, first_seq, first_event_seq, trader_nos, error);
exception
  when others then
    raise warning 'Cannot note that a broadcast failed: %.', sqlerrm;
end
$$;

comment on function private.note_failure is
'Has told again later what could not be told, and never fails.';

create function private.broadcast_news(
  account_no integer,
  batch private.batches,
  first_event_seq bigint
)
returns void
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_account private.accounts;
  v_trader_nos integer[] := array[]::integer[];
  v_waits boolean;
begin
  select account.* into strict v_account
  from private.accounts as account
  where account.account_no = broadcast_news.account_no;
  -- The account's row is written behind its ledger row.
  v_account.last_seq := greatest(v_account.last_seq, batch.last_seq);
  v_trader_nos := private.own_channels(batch);
  select
    state.broadcast_interval > interval '0'
    or num_nonnulls(pending.first_seq, pending.first_event_seq) > 0
  into v_waits
  from private.live_state as state
  left join private.pending_broadcasts as pending
    on pending.account_no = broadcast_news.account_no;
  if v_waits then
    perform private.hold_broadcast(
      broadcast_news.account_no, batch.first_seq, first_event_seq, v_trader_nos, null);
    perform private.tell_pending(v_account);
  elsif first_event_seq is null then
    perform private.tell_signals(v_account.account_id, batch, v_trader_nos);
  else
    perform private.tell_events(v_account, first_event_seq, v_account.last_event_seq);
  end if;
exception
  when others then
    perform private.note_failure(
      broadcast_news.account_no, batch.first_seq, first_event_seq, v_trader_nos, sqlerrm);
end
$$;

comment on function private.broadcast_news is
'Tells of a batch just stored, or of the events from first_event_seq on, at once or when the interval
of the account is over; what cannot be told now is told again. Never fails the writer, who holds the
lock of the account.';

create function private.broadcast_batch()
returns trigger
language plpgsql
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_account_id uuid;
  v_is_plain boolean;
begin
  select
    account.account_id,
    state.broadcast_interval = interval '0'
    and not exists (
      select from private.pending_broadcasts as pending
      where pending.account_no = new.account_no
        and num_nonnulls(pending.first_seq, pending.first_event_seq) > 0)
    and not exists (
      select from private.traders as trader
      where trader.account_no = new.account_no and trader.own_channel)
  into v_account_id, v_is_plain
  from private.accounts as account
  cross join private.live_state as state
  where account.account_no = new.account_no;
  -- The usual batch takes the short way: this is part of what every ingest costs.
  if v_is_plain then
    perform private.send_broadcast(
      private.broadcast_payload(new), 'signals_ingested', 'account:' || v_account_id || ':signals');
  else
    perform private.broadcast_news(new.account_no, new, null);
  end if;
  return null;
exception
  when others then
    perform private.note_failure(new.account_no, new.first_seq, null, '{}', sqlerrm);
    return null;
end
$$;

comment on function private.broadcast_batch is 'Has each stored batch told.';

-- One row is one batch, so a row trigger sends once a batch; a transition table would only cost.
create trigger broadcast_stored_batch
after insert on private.batches
for each row when (new.first_seq is not null)
execute function private.broadcast_batch();

alter table private.pending_broadcasts enable row level security;
