-- Live delivery: each answered batch that stored something is broadcast once to its account's topic.
-- The trigger is on the ledger, which has one row a batch with the seq range to tell.
-- Must never break: a broadcast is a hint, so it can never fail an ingest; readers heal by seq.

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
  v_signals jsonb;
begin
  -- Carrying a signal costs the writer more than storing it (compared by scripts/bench ingest), and
  -- every socket a copy. Above 20 a reader fetches the page by seq, for several batches at once.
  -- 20 of the largest signals (2 KB of metadata each) are below 64 KB.
  if batch.last_seq - batch.first_seq < 20 then
    -- Just stored: in the heap, and without an event.
    select jsonb_agg(
      to_jsonb(shown) - 'account_id' || jsonb_build_object(
        'status', private.status_at(null, shown.valid_until, private.clock()), 'outcome', null)
      order by shown.seq)
    into v_signals
    from private.shown_signals(array(
      select signal
      from private.signals as signal
      where signal.account_no = batch.account_no
        and signal.seq between batch.first_seq and batch.last_seq
        and signal.generated_at between batch.first_generated_at and batch.last_generated_at
    )) as shown;
  end if;
  -- An import writes segments, not rows: readers fetch it by seq.
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

create function private.broadcast_batch()
returns trigger
language plpgsql
security definer
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_account_id uuid := (
    select account.account_id from private.accounts as account
    where account.account_no = new.account_no);
  v_payload jsonb;
  v_trader private.traders;
begin
  -- Not in the declaration: an error there would not be caught below.
  v_payload := private.broadcast_payload(new);
  perform realtime.send(
    v_payload, 'signals_ingested', 'account:' || v_account_id || ':signals', true);
  -- Most accounts have no such trader, and to look into the partitions for nothing is not free.
  for v_trader in
    select trader.* from private.traders as trader
    where trader.account_no = new.account_no and trader.own_channel
  loop
    if private.has_signal_of(v_trader.trader_no, new) then
      perform realtime.send(
        v_payload - 'signals', 'signals_ingested', 'trader:' || v_trader.trader_id || ':signals',
        true);
    end if;
  end loop;
  return null;
exception
  when others then
    raise warning 'Cannot broadcast the batch: %; readers catch up by seq.', sqlerrm;
    return null;
end
$$;

comment on function private.broadcast_batch is
'Sends a batch to the private topic of its account, and of its traders that have their own channel.';

-- One row is one batch, so a row trigger sends once a batch; a transition table would only cost.
create trigger broadcast_stored_batch
after insert on private.batches
for each row when (new.first_seq is not null)
execute function private.broadcast_batch();
