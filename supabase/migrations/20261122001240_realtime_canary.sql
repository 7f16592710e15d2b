-- The canary of live delivery: what the edge function realtime-canary does in the database.
-- A broadcast is sent for it to receive; how long that took, or why it failed, is kept for a week.
-- Must never break: nobody but service_role sends or hears it, and it tells nothing of any account.

create table private.canary_runs (
  started_at timestamptz not null default clock_timestamp(),
  milliseconds double precision,
  run_id uuid primary key,
  error text,
  constraint milliseconds_is_not_negative check (milliseconds >= 0),
  constraint error_has_1_to_200_characters check (char_length(error) between 1 and 200)
);

create index canary_runs_started_at_idx on private.canary_runs (started_at);

comment on table private.canary_runs is 'One row a run of the canary, kept for 7 days.';
comment on column private.canary_runs.milliseconds is
'From asking for the broadcast until it was received; null while that has not happened.';

create function private.send_canary(run_id uuid)
returns text
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from private.canary_runs as run
  where run.started_at < clock_timestamp() - interval '7 days';
  insert into private.canary_runs (run_id) values (send_canary.run_id);
  perform private.send_broadcast(
    jsonb_build_object('run_id', send_canary.run_id), 'canary', 'canary:' || send_canary.run_id);
  return null;
exception
  when others then return sqlerrm;
end
$$;

comment on function private.send_canary is 'Body of public.send_canary.';

create function public.send_canary(run_id uuid)
returns text
language sql
set search_path = ''
as 'select private.send_canary(run_id)';

comment on function public.send_canary is
'Sends a broadcast to the private topic canary:<run_id>, which only service_role may join; answers why it
could not, or null. For the edge function realtime-canary.';

create function private.record_canary(
  run_id uuid,
  milliseconds double precision,
  error text
)
returns void
language sql
security definer
set search_path = ''
as $$
  insert into private.canary_runs as run (run_id, milliseconds, error)
  values (record_canary.run_id, record_canary.milliseconds, left(record_canary.error, 200))
  on conflict on constraint canary_runs_pkey do update
  set milliseconds = excluded.milliseconds, error = excluded.error
$$;

comment on function private.record_canary is 'Body of public.record_canary.';

create function public.record_canary(
  run_id uuid,
  milliseconds double precision,
  error text
)
returns void
language sql
set search_path = ''
as 'select private.record_canary(run_id, milliseconds, error)';

comment on function public.record_canary is
'Keeps how a run of the canary ended: after how many milliseconds it was received, or why it was not.';

alter table private.canary_runs enable row level security;

grant execute on function private.send_canary to service_role;
grant execute on function public.send_canary to service_role;
grant execute on function private.record_canary to service_role;
grant execute on function public.record_canary to service_role;
