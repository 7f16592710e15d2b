-- How often an account is broadcast to and subscribers ask: what the operator says, and what the quota
-- makes of it. Hosted projects count every delivery, so that many busy accounts have to share.
-- Must never break: with few accounts nothing is held back; account_head is one row read by its key.

create table private.live_settings (
  messages_per_second integer not null default 2500,
  subscribers_per_account numeric not null default 1,
  broadcast_min_interval interval,
  check_interval interval not null default '3.5 seconds',
  is_the_only_row boolean primary key default true,
  constraint messages_per_second_is_positive check (messages_per_second > 0),
  constraint subscribers_per_account_is_not_negative check (subscribers_per_account >= 0),
  constraint broadcast_min_interval_is_from_0_to_1_minute check (
    broadcast_min_interval between interval '0' and interval '1 minute'
  ),
  constraint check_interval_is_from_1_second_to_1_minute check (
    check_interval between interval '1 second' and interval '1 minute'
  ),
  constraint there_is_one_row check (is_the_only_row)
);

comment on table private.live_settings is
'What an operator says of live delivery: docs/operations.md. The job broadcast goes by it.';
comment on column private.live_settings.messages_per_second is
'The quota of the project, or the part of it that signals may take. One broadcast counts as one
message, and as one more for each subscriber.';
comment on column private.live_settings.subscribers_per_account is
'How many sockets listen to the channel of an account, on average.';
comment on column private.live_settings.broadcast_min_interval is
'How far apart the broadcasts of an account are at least. Null: as far as the quota asks for.';

comment on column private.live_settings.check_interval is
'How long nothing may come to a subscriber before it asks account_head. A failure that makes no noise
shows within it and 1.5 seconds.';

insert into private.live_settings default values;

create table private.live_state (
  broadcast_interval interval not null default '0',
  decided_at timestamptz not null default '-infinity',
  is_the_only_row boolean primary key default true,
  constraint broadcast_interval_is_not_negative check (broadcast_interval >= interval '0'),
  constraint there_is_one_row check (is_the_only_row)
);

comment on table private.live_state is 'What the job broadcast has made of private.live_settings.';
comment on column private.live_state.broadcast_interval is
'How far apart the broadcasts of an account are now; 0: each batch is broadcast at once.';

insert into private.live_state default values;

create function private.account_head()
returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
begin
  return (
    select json_build_object(
      'last_seq', coalesce(account.last_seq, 0),
      'last_event_seq', coalesce(account.last_event_seq, 0),
      -- What is held back is due after the interval, and the job looks once a second. What began to
      -- wait under a longer interval is still due when that is over.
      'broadcast_interval_ms', case
        when state.broadcast_interval > interval '0' or pending.due_at > clock_timestamp()
          then 1000 + ceil(1000 * extract(epoch from
            greatest(state.broadcast_interval, pending.due_at - clock_timestamp())))
        else 0
      end,
      'check_interval_ms', round(1000 * extract(epoch from settings.check_interval)),
      'database_time', clock_timestamp())
    from private.live_state as state
    cross join private.live_settings as settings
    left join private.accounts as account on account.account_id = v_account_id
    left join private.pending_broadcasts as pending on pending.account_no = account.account_no);
end
$$;

comment on function private.account_head is 'Body of public.account_head.';

create function public.account_head()
returns json
language plpgsql
stable
set search_path = ''
as 'begin return private.account_head(); end';

comment on function public.account_head is
'What subscribers compare with what they have received: last_seq and last_event_seq of the caller''s
account, all up to which can be read; broadcast_interval_ms, how long a broadcast may be held back now
(0: not at all); check_interval_ms, how long nothing may come before they ask again; and database_time,
by which they know how late a broadcast is.';

alter table private.live_settings enable row level security;
alter table private.live_state enable row level security;

grant execute on function private.account_head to authenticated;
grant execute on function public.account_head to authenticated;
