-- The job broadcast: tells what was held back, and decides how far apart broadcasts have to be.
-- Of each account in turn it takes the lock that a writer has, and passes over those that are writing.
-- Must never break: what is pending is told even when nothing more is ingested.

create function private.automatic_interval(present interval)
returns interval
language plpgsql
stable
set search_path = ''
as $$
declare
  -- Accounts come and go faster than this is decided, and the server counts what others send as well.
  v_aim constant double precision := 0.8;
  -- Longer than the present interval, else accounts that wait would seem to have gone.
  v_window constant interval := greatest(interval '10 seconds', present * 1.25);
  v_until constant timestamp := timezone('utc', clock_timestamp());
  v_settings private.live_settings;
  v_streams bigint;
  v_used double precision;
begin
  select settings.* into strict v_settings from private.live_settings as settings;
  select
    count(*),
    coalesce(sum(stream.messages), 0) * (1 + v_settings.subscribers_per_account)
      / extract(epoch from v_window) / v_settings.messages_per_second
  into v_streams, v_used
  from (
    select count(*) as messages
    from realtime.messages as message
    where message.inserted_at > v_until - v_window
      and message.inserted_at <= v_until
      and message.extension = 'broadcast' and message.private
      and message.event in ('signals_ingested', 'signals_advanced')
    group by message.topic, message.event
  ) as stream;
  -- Nothing waits while half of the quota is enough; once something does, until a quarter is.
  if v_used <= (case present when interval '0' then 0.5 else 0.25 end) then
    return interval '0';
  end if;
  return make_interval(
    secs => v_streams * (1 + v_settings.subscribers_per_account)::double precision
      / (v_aim * v_settings.messages_per_second));
end
$$;

comment on function private.automatic_interval is
'How far apart the broadcasts of an account have to be, so that all streams (topics and events) of the
last seconds together take four fifths of the quota: streams x (1 + subscribers) / (0.8 x messages per
second). 0 while they take half of it at most by themselves.';

create function private.decide_interval()
returns interval
language plpgsql
set search_path = ''
as $$
declare
  v_state private.live_state;
begin
  select state.* into strict v_state from private.live_state as state;
  if v_state.decided_at > clock_timestamp() - interval '5 seconds' then
    return v_state.broadcast_interval;
  end if;
  update private.live_state as state
  set
    broadcast_interval = coalesce(
      settings.broadcast_min_interval, private.automatic_interval(v_state.broadcast_interval)),
    decided_at = clock_timestamp()
  from private.live_settings as settings
  returning state.broadcast_interval into v_state.broadcast_interval;
  return v_state.broadcast_interval;
end
$$;

comment on function private.decide_interval is
'The interval between the broadcasts of an account, decided anew every 5 seconds.';

create function private.tell_due()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_account private.accounts;
  v_locked bigint := 0;
begin
  for v_account in
    select account.*
    from private.pending_broadcasts as pending
    inner join private.accounts as account on account.account_no = pending.account_no
    where pending.due_at <= v_now
    order by pending.due_at
    -- Every account that is told waits for the end of the step.
    limit 50
    for no key update of account skip locked
  loop
    -- It looks again, under the lock: somebody else may have told it meanwhile.
    perform private.tell_pending(v_account);
    v_locked := v_locked + 1;
  end loop;
  return v_locked;
end
$$;

comment on function private.tell_due is
'Tells what is due of 50 accounts at most, but of none that is locked: who has the lock tells it, or the
next step. Returns how many are locked now, told by this or by somebody just before.';

create function private.broadcast_step()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_interval interval := private.decide_interval();
  v_locked bigint := private.tell_due();
  v_next_due_at timestamptz;
begin
  -- Whoever sleeps holds no lock.
  if v_locked > 0 then
    return v_locked;
  end if;
  select min(pending.due_at) into v_next_due_at
  from private.pending_broadcasts as pending
  where num_nonnulls(pending.first_seq, pending.first_event_seq) > 0;
  if v_interval = interval '0' and v_next_due_at is null then
    return 0;
  end if;
  -- While anything may be held back, a run goes on and looks again: cron starts one every 10 seconds
  -- only, since each costs a connection.
  perform pg_sleep(greatest(0.05, least(
    1, nullif(extract(epoch from v_interval), 0),
    extract(epoch from v_next_due_at - clock_timestamp()))));
  return 1;
end
$$;

comment on function private.broadcast_step is
'One step of the job broadcast: tells what is due, or waits for up to a second. Returns of how many
accounts it told (1 for having waited); 0 when nothing is held back now.';

insert into private.jobs (job, schedule, late_after)
values ('broadcast', '10 seconds', '2 minutes');
