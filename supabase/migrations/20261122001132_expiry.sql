-- Expiry: a signal whose valid_until has passed unused is expired from that instant, by the clock.
-- Nothing is stored for that; the job here only tells it, one event for many signals of an account.
-- Must never break: each signal that expires is told once, however late the job runs.

create table private.expiries (
  due_at timestamptz not null,
  first_generated_at timestamptz not null,
  last_generated_at timestamptz not null,
  account_no integer not null,
  signals integer not null,
  seqs int8multirange not null,
  constraint signals_is_positive check (signals > 0)
);

create index expiries_due_at_idx on private.expiries (due_at, account_no);

comment on table private.expiries is
'What is still to be told: the signals of an account that expire in one minute, by seq. Filled from the
ledger of batches; a row is deleted in the transaction that tells it.';
comment on column private.expiries.due_at is 'The end of the minute in which valid_until lies.';

create table private.expiry_progress (
  read_before xid8 not null default '0',
  is_the_only_row boolean primary key default true,
  constraint there_is_one_row check (is_the_only_row)
);

comment on table private.expiry_progress is 'How far the ledger of batches has been read for expiries.';
comment on column private.expiry_progress.read_before is
'Batches of transactions before this one have been read.';

insert into private.expiry_progress default values;

create function private.schedule_expiries(before xid8)
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_signals constant integer := 20000;
  v_from xid8;
  v_before xid8;
  v_read bigint;
begin
  select progress.read_before into strict v_from
  from private.expiry_progress as progress
  for update;
  -- Up to the transaction before which there are enough signals: a transaction is read whole.
  select coalesce(min(pending.transaction_id), schedule_expiries.before) into v_before
  from (
    select
      batch.transaction_id,
      sum(batch.last_seq - batch.first_seq + 1) over (
        order by batch.transaction_id groups between unbounded preceding and 1 preceding
      ) as signals
    from private.batches as batch
    where batch.transaction_id >= v_from
      and batch.transaction_id < schedule_expiries.before
      and batch.first_seq is not null
  ) as pending
  where pending.signals >= v_signals;

  with batch as (
    select
      each.account_no,
      range_agg(int8range(each.first_seq, each.last_seq, '[]')) filter (
        where each.last_valid_until is not null
      ) as seqs,
      sum(each.last_seq - each.first_seq + 1) as signals
    from private.batches as each
    where each.transaction_id >= v_from
      and each.transaction_id < v_before
      and each.first_seq is not null
    group by each.account_no
  ),
  scheduled as (
    insert into private.expiries (
      due_at, first_generated_at, last_generated_at, account_no, signals, seqs
    )
    select
      date_bin('1 minute', signal.valid_until + interval '59.999999 seconds', 'epoch'),
      min(signal.generated_at), max(signal.generated_at), batch.account_no, count(*),
      range_agg(int8range(signal.seq, signal.seq, '[]'))
    from batch
    cross join lateral unnest(batch.seqs) as part
    cross join lateral private.signals_by_seq(
      batch.account_no, lower(part), upper(part) - 1
    ) as signal
    where signal.valid_until is not null
    group by 1, batch.account_no
  )
  select coalesce(sum(batch.signals), 0) into v_read from batch;

  update private.expiry_progress as progress set read_before = v_before;
  return v_read;
end
$$;

comment on function private.schedule_expiries is
'Notes when the signals of the next batches expire, as far as transactions before the given one, and
returns how many signals it read; 0 when there is no further batch.';

create function private.expire_signals(
  account private.accounts,
  due private.expiries
)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := account;
  v_expired int8multirange;
  v_events bigint;
begin
  select due.seqs - coalesce(range_agg(int8range(event.signal_seq, event.signal_seq, '[]')), '{}')
  into strict v_expired
  from unnest(due.seqs) as part
  inner join private.signal_events as event
    on event.account_no = account.account_no
    and event.signal_seq >= lower(part) and event.signal_seq < upper(part)
    and event.generated_at between due.first_generated_at and due.last_generated_at
    and event.expired_seqs is null
    and private.status_at(event.status, due.due_at, due.due_at) <> 'expired';

  insert into private.signal_events (
    generated_at, seq, signal_seq, occurred_at, received_at, account_no, status, expired_seqs
  )
  select
    due.first_generated_at,
    account.last_event_seq + row_number() over (order by run.number / 100),
    min(lower(run.part)), due.due_at, private.clock(), account.account_no, 5, range_agg(run.part)
  from (
    select part, row_number() over (order by part) - 1 as number
    from unnest(v_expired) as part
  ) as run
  group by run.number / 100;
  get diagnostics v_events = row_count;

  if v_events > 0 then
    v_account.expired_until := greatest(account.expired_until, due.due_at);
    perform private.publish_events(v_account, v_events);
  end if;
end
$$;

comment on function private.expire_signals is
'Appends and tells the event of those of the due signals that nothing has ended before: one event for
each 100 runs of consecutive seq, which a broadcast can carry. The caller holds the lock of the account.';

create function private.expire_due()
returns bigint
language plpgsql
set search_path = ''
as $$
declare
  v_signals constant integer := 20000;
  v_due private.expiries;
  v_told bigint := 0;
begin
  for v_due in
    with picked as (
      select
        expiry.ctid,
        sum(expiry.signals) over (
          order by expiry.due_at, expiry.account_no rows between unbounded preceding and 1 preceding
        ) as before
      from private.expiries as expiry
      where expiry.due_at <= private.clock()
      order by expiry.due_at, expiry.account_no
      -- Every account that is told waits for the end of the step.
      limit 50
    ),
    due as (
      delete from private.expiries as expiry
      using picked
      where expiry.ctid = picked.ctid and coalesce(picked.before, 0) < v_signals
      returning expiry.*
    )
    select
      max(due.due_at), min(due.first_generated_at), max(due.last_generated_at), due.account_no,
      sum(due.signals), range_agg(due.seqs)
    from due
    group by due.account_no
    -- The order in which whoever locks several accounts locks them.
    order by due.account_no
  loop
    perform private.expire_signals(
      private.lock_account((
        select account.account_id from private.accounts as account
        where account.account_no = v_due.account_no)),
      v_due);
    v_told := v_told + v_due.signals;
  end loop;
  return v_told;
end
$$;

comment on function private.expire_due is
'Tells what is due, the oldest first, and returns how many signals were looked at; 0 when none is due.';

create function private.expiry_step()
returns bigint
language plpgsql
security definer
set search_path = ''
as $$
begin
  return private.schedule_expiries(pg_snapshot_xmin(pg_current_snapshot()))
    + private.expire_due();
end
$$;

comment on function private.expiry_step is
'One bounded step of the expiry job: reads at most about 20,000 new signals, and tells at most about
20,000 expired ones. Returns how many; 0 when nothing is left now.';

alter table private.expiries enable row level security;
alter table private.expiry_progress enable row level security;
