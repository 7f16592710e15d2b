-- Accounts, their tiers, and who is calling.
-- One row per account is the only lock of a write: it holds last_seq, the quota counters and the head
-- of the audit chain.
-- Must never break: seq has no gaps, so last_seq only moves in the transaction that stores signals.

create table private.tiers (
  tier text primary key,
  signals_per_day integer,
  signals_per_minute integer,
  traders integer not null,
  hot_signals integer,
  warm_signals integer,
  constraint signals_per_day_is_positive check (signals_per_day > 0),
  constraint signals_per_minute_is_positive check (signals_per_minute > 0),
  constraint traders_is_positive check (traders > 0),
  constraint hot_signals_is_positive check (hot_signals > 0),
  constraint warm_signals_is_positive check (warm_signals > 0)
);

comment on table private.tiers is 'What an account of each tier may do. A null limit means unlimited.';
comment on column private.tiers.hot_signals is
'How many signals stay in hot storage; the oldest beyond are packed early. Nothing is deleted.';
comment on column private.tiers.warm_signals is
'How many packed signals stay in warm storage; the oldest beyond are merged early.';

insert into private.tiers (
  tier, signals_per_day, signals_per_minute, traders, hot_signals, warm_signals
)
values
('free', 100, null, 10, 1000, 10000),
('pro', 10000, 1000, 100, 100000, 1000000),
('elite', null, null, 10000, null, null);

create table private.accounts (
  account_no integer generated always as identity primary key,
  account_id uuid not null unique,
  tier text not null default 'free' references private.tiers (tier),
  last_seq bigint not null default 0,
  day_started date not null default '-infinity',
  day_used integer not null default 0,
  minute_started timestamptz not null default '-infinity',
  minute_used integer not null default 0,
  created_at timestamptz not null default now(),
  packed_until timestamptz not null default '-infinity',
  last_event_seq bigint not null default 0,
  expired_until timestamptz not null default '-infinity',
  last_link_no bigint not null default 0,
  chain_hash bytea not null default '\x',
  constraint last_seq_is_not_negative check (last_seq >= 0),
  constraint last_event_seq_is_not_negative check (last_event_seq >= 0),
  constraint last_link_no_is_not_negative check (last_link_no >= 0),
  constraint chain_hash_is_a_sha256 check (
    octet_length(chain_hash) = case last_link_no when 0 then 0 else 32 end
  ),
  constraint day_used_is_not_negative check (day_used >= 0),
  constraint minute_used_is_not_negative check (minute_used >= 0)
)
-- Every batch updates its account's row in place: room on the page keeps that update off the index.
with (fillfactor = 50);

create index accounts_tier_idx on private.accounts (tier);

comment on table private.accounts is
'One row per auth user who has used the service. account_no is the short key of every other table.';
comment on column private.accounts.account_id is
'auth.users.id. No foreign key: the history of an account outlives its login.';
comment on column private.accounts.last_seq is 'seq of the newest signal; all up to it are visible.';
comment on column private.accounts.day_started is 'The UTC day that day_used counts.';
comment on column private.accounts.minute_started is 'The minute that minute_used counts.';
comment on column private.accounts.packed_until is
'A signal generated at or before this may be packed: its duplicate is looked for in the segments too.';
comment on column private.accounts.last_event_seq is
'event_seq of the newest lifecycle event; all up to it are visible.';
comment on column private.accounts.expired_until is
'Signals valid until this or less have been told as expired: no later change may see them otherwise.';
comment on column private.accounts.last_link_no is 'link_no of the newest audit link: the chain''s head.';
comment on column private.accounts.chain_hash is 'Hash of the newest audit link; empty before the first.';

-- The clock of quotas and windows: one place, so that a test can set it.
create function private.clock()
returns timestamptz
language plpgsql
stable
set search_path = ''
as 'begin return pg_catalog.now(); end';

comment on function private.clock is 'The time that quotas and clock windows go by.';

create function private.raise_error(
  status integer,
  code text,
  message text,
  hint text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'PT' || raise_error.status,
    message = raise_error.message,
    detail = raise_error.code,
    hint = raise_error.hint;
end
$$;

comment on function private.raise_error is
'Raises an error of the catalogue: PostgREST answers with the status, details holds the code.';

create function private.token_is_live()
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_key_id text := auth.jwt() ->> 'api_key_id';
begin
  return v_key_id is null or private.api_key_is_live(v_key_id::uuid);
end
$$;

comment on function private.token_is_live is
'False when the access token was made of an API key that has since been revoked or has expired.';

create function private.has_scope(scope text)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_claims jsonb := auth.jwt();
begin
  return coalesce(
    has_scope.scope = any(string_to_array(v_claims ->> 'scope', ' ')),
    v_claims ->> 'api_key_id' is null and v_claims ->> 'client_id' is null
  ) and private.token_is_live();
end
$$;

comment on function private.has_scope is
'True when the access token may do this: it carries the scope, or it is that of a signed-in user (no scope
claim, of no API key, and not given to an OAuth client, which names itself in client_id); and its API
key, if it was made of one, is live. The one check of every policy and,
through caller_id, of every function.';

create function private.caller_id(scope text)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account_id uuid := auth.uid();
begin
  if v_account_id is null then
    perform private.raise_error(
      401, 'unauthorized', 'Cannot tell which account is calling: the access token names no user.',
      'Send the access token of a signed-in user in the Authorization header.');
  end if;
  if private.has_scope(caller_id.scope) then
    return v_account_id;
  end if;
  if not private.token_is_live() then
    perform private.raise_error(
      401, 'unauthorized', 'Cannot do this: the API key of the access token was revoked or has expired.',
      'Create another key with create_api_key.');
  end if;
  perform private.raise_error(
    403, 'insufficient_scope', 'Cannot do this: the access token lacks the scope '
      || caller_id.scope || '.',
    'Use the access token of a signed-in user, or one whose scope claim contains '
      || caller_id.scope || '.');
  return null;
end
$$;

comment on function private.caller_id is
'The account of the access token; PT401 without one or with one of a dead API key, PT403 without the
scope. Every function that authenticated may execute calls it first; a test finds those that do not.';

create function private.caller_account_no(scope text)
returns integer
language sql
stable
security definer
set search_path = ''
as $$
  select account.account_no
  from private.accounts as account
  where account.account_id = (select auth.uid())
    and private.has_scope(caller_account_no.scope)
$$;

comment on function private.caller_account_no is
'account_no of the caller for policies; null without an account or without the scope.';

create function private.lock_account(account_id uuid)
returns private.accounts
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts;
begin
  select account.* into v_account
  from private.accounts as account
  where account.account_id = lock_account.account_id
  for no key update;
  if not found then
    insert into private.accounts (account_id) values (lock_account.account_id)
    on conflict do nothing;
    select account.* into strict v_account
    from private.accounts as account
    where account.account_id = lock_account.account_id
    for no key update;
  end if;
  return v_account;
end
$$;

comment on function private.lock_account is
'Locks the account''s row until the transaction ends, making the account at its first use.';

create function private.set_account_tier(
  account_id uuid,
  tier text
)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (select from private.tiers as known where known.tier = set_account_tier.tier) then
    perform private.raise_error(
      400, 'invalid_request', 'Cannot set the tier: there is no such tier.',
      'Use one of free, pro or elite.');
  end if;
  perform private.lock_account(set_account_tier.account_id);
  update private.accounts as account
  set tier = set_account_tier.tier
  where account.account_id = set_account_tier.account_id;
end
$$;

comment on function private.set_account_tier is 'Body of public.set_account_tier.';

create function public.set_account_tier(
  account_id uuid,
  tier text
)
returns void
language sql
set search_path = ''
as 'select private.set_account_tier(account_id, tier)';

comment on function public.set_account_tier is
'Moves an account to a tier (free, pro, elite). For operators: service_role only.';

create function public.my_account()
returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'account_id', caller.account_id,
    'tier', tier.tier,
    'last_seq', coalesce(account.last_seq, 0),
    'day', json_build_object(
      'used', case account.day_started
        when (caller.clock at time zone 'utc')::date then account.day_used else 0 end,
      'limit', tier.signals_per_day),
    'minute', json_build_object(
      'used', case account.minute_started
        when date_trunc('minute', caller.clock) then account.minute_used else 0 end,
      'limit', tier.signals_per_minute))
  from (
    select private.caller_id('signals:read') as account_id, private.clock() as clock
  ) as caller
  left join private.accounts as account on account.account_id = caller.account_id
  inner join private.tiers as tier on tier.tier = coalesce(account.tier, 'free')
$$;

comment on function public.my_account is
'Where the caller''s account stands: tier, last_seq, and what of the day''s and the minute''s allowance is used.';

alter table private.tiers enable row level security;
alter table private.accounts enable row level security;

create policy members_read_tiers on private.tiers
for select to authenticated using (tier is not null);

create policy members_read_own_account on private.accounts
for select to authenticated
using (account_id = (select auth.uid()) and (select private.has_scope('signals:read')));

grant select on private.tiers, private.accounts to authenticated, service_role;

grant execute on function private.clock to authenticated, service_role;
grant execute on function private.raise_error to authenticated, service_role;
grant execute on function private.token_is_live to authenticated, service_role;
grant execute on function private.has_scope to authenticated, service_role;
grant execute on function private.caller_id to authenticated, service_role;
grant execute on function private.caller_account_no to authenticated;
grant execute on function private.set_account_tier to service_role;
grant execute on function public.set_account_tier to service_role;
grant execute on function public.my_account to authenticated;
