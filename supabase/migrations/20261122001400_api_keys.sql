-- API keys: what a process without a person signs in with, scoped, revocable, one account's own.
-- A key is shown once and stored as its SHA-256; the edge function exchange-api-key trades it for a
-- token of at most 15 minutes. private.caller_id and private.has_scope (accounts) judge that token.
-- Must never break: no key can be read from the database, and a dead key's tokens die with it.

create function private.api_key_scopes()
returns text[]
language sql
immutable
set search_path = ''
as $$ select array['signals:read', 'signals:write'] $$;

comment on function private.api_key_scopes is
'What a key may be given. keys:manage is not among it: only a signed-in user manages keys.';

create table private.api_keys (
  key_id uuid primary key default gen_random_uuid(),
  account_no integer not null references private.accounts (account_no),
  name text not null,
  scopes text[] not null,
  key_hash bytea not null unique,
  hint text not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  revoked_at timestamptz,
  last_used_at timestamptz,
  exchanges_paid_until timestamptz not null default '-infinity',
  constraint name_is_1_to_64_characters_without_outer_space check (
    char_length(name) between 1 and 64 and name = btrim(name) and name !~ '[[:cntrl:]]'
  ),
  constraint scopes_are_some_that_a_key_may_have check (
    cardinality(scopes) > 0 and scopes <@ private.api_key_scopes()
  ),
  constraint key_hash_is_a_sha256 check (octet_length(key_hash) = 32),
  constraint expires_after_it_was_created check (expires_at > created_at),
  constraint expires_at_a_date_if_at_all check (isfinite(expires_at))
);

create index api_keys_account_no_idx on private.api_keys (account_no);

comment on table private.api_keys is
'API keys of accounts. No client role may read it, so that not even a hash leaves the database.';
comment on column private.api_keys.key_hash is
'SHA-256 of the key. A key has 244 random bits, so a slow hash would protect nothing more.';
comment on column private.api_keys.hint is 'The key''s last four characters, to tell keys apart.';
comment on column private.api_keys.expires_at is
'Null, as a key has it for which nothing else was said, means: when it is revoked.';
comment on column private.api_keys.last_used_at is 'When it was last exchanged for a token.';
comment on column private.api_keys.exchanges_paid_until is
'Each exchange moves it on by a second, from now at least; it is a minute ahead at most.';

create function private.api_key_json(api_key private.api_keys)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'key_id', api_key.key_id,
    'name', api_key.name,
    'scopes', api_key.scopes,
    'hint', api_key.hint,
    'created_at', api_key.created_at,
    'expires_at', api_key.expires_at,
    'revoked_at', api_key.revoked_at,
    'last_used_at', api_key.last_used_at)
$$;

comment on function private.api_key_json is 'A key as its owner sees it: everything but the key.';

create function private.is_live(api_key private.api_keys)
returns boolean
language sql
stable
set search_path = ''
as $$
  select api_key.revoked_at is null
    and coalesce(api_key.expires_at > private.clock(), true)
$$;

comment on function private.is_live is 'True unless the key was revoked or has expired.';

create function private.api_key_is_live(key_id uuid)
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  select exists (
    select from private.api_keys as api_key
    where api_key.key_id = api_key_is_live.key_id and private.is_live(api_key)
  )
$$;

comment on function private.api_key_is_live is
'True for a key that exists and was neither revoked nor has expired: asked for each of its tokens.';

create function private.require_session()
returns void
language plpgsql
stable
security definer
set search_path = ''
as $$
begin
  if not exists (
    select
    from auth.sessions as session
    where session.id = (auth.jwt() ->> 'session_id')::uuid
      and session.user_id = auth.uid()
      and coalesce(session.not_after > private.clock(), true)
      and (session.aal = 'aal2' or not exists (
        select from auth.mfa_factors as factor
        where factor.user_id = session.user_id and factor.status = 'verified'))
  ) then
    perform private.raise_error(
      401, 'unauthorized', 'Cannot do this: the access token is of no session that goes on.',
      'Sign in again, with the second factor if the user has one.');
  end if;
end
$$;

comment on function private.require_session is
'PT401 unless the access token is of a session that was not signed out of or ended, and that the user''s
second factor, if there is one, was shown in. A token of an API key has no session at all.';

create function private.require_api_key_request(
  name text,
  scopes text[],
  expires_at timestamptz
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  perform private.require_name(require_api_key_request.name, 'a key');
  if not coalesce(cardinality(scopes) > 0 and scopes <@ private.api_key_scopes(), false) then
    perform private.raise_error(
      400, 'invalid_request', 'Cannot give the key these scopes.',
      'Give one or more of ' || array_to_string(private.api_key_scopes(), ', ') || '.');
  end if;
  if expires_at <= private.clock() or not isfinite(expires_at) then
    perform private.raise_error(
      400, 'invalid_request', 'Cannot make the key: expires_at must be a time in the future.',
      'Give a time in the future, or none for a key that lives until it is revoked.');
  end if;
end
$$;

comment on function private.require_api_key_request is 'PT400 unless a key can be made of this.';

create function private.require_room_for_api_key(account_no integer)
returns void
language plpgsql
set search_path = ''
as $$
begin
  delete from private.api_keys as api_key
  where api_key.account_no = require_room_for_api_key.account_no
    and least(api_key.revoked_at, api_key.expires_at) < private.clock() - interval '90 days';
  if (
    select count(*) >= 20
    from private.api_keys as api_key
    where api_key.account_no = require_room_for_api_key.account_no and private.is_live(api_key)
  ) then
    perform private.raise_error(
      403, 'api_key_limit_reached', 'Cannot make the key: the account has 20 keys already.',
      'Revoke a key that is no longer used.');
  end if;
  -- Revoked keys stay: who makes and revokes them in turn must not fill the table.
  if (
    select count(*) >= 50
    from private.api_keys as api_key
    where api_key.account_no = require_room_for_api_key.account_no
      and api_key.created_at > private.clock() - interval '1 day'
  ) then
    perform private.raise_error(
      403, 'api_key_limit_reached', 'Cannot make the key: the account has made 50 in a day.',
      'Give a process a key that it keeps, and make others tomorrow.');
  end if;
end
$$;

comment on function private.require_room_for_api_key is
'PT403 when the account has 20 live keys or has made 50 in a day; forgets those that have been dead for
90 days.';

create function private.create_api_key(
  name text,
  scopes text[],
  expires_at timestamptz
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('keys:manage');
  -- It begins with the account, so that a client knows whose it is before it can ask anybody.
  v_secret text := 'sgk_' || replace(v_account_id::text, '-', '') || '_'
    || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex');
  v_account private.accounts;
  v_key private.api_keys;
begin
  -- A key may live for ever, a token an hour: one that was stolen must not buy the other.
  perform private.require_session();
  perform private.require_api_key_request(
    create_api_key.name, create_api_key.scopes, create_api_key.expires_at);
  v_account := private.lock_account(v_account_id);
  perform private.require_room_for_api_key(v_account.account_no);
  insert into private.api_keys (
    account_no, name, scopes, key_hash, hint, created_at, expires_at
  )
  values (
    v_account.account_no, create_api_key.name,
    array(select distinct scope from unnest(create_api_key.scopes) as scope order by scope),
    sha256(convert_to(v_secret, 'UTF8')), right(v_secret, 4), private.clock(),
    create_api_key.expires_at)
  returning * into v_key;
  return private.api_key_json(v_key) || jsonb_build_object('api_key', v_secret);
end
$$;

comment on function private.create_api_key is 'Body of public.create_api_key.';

create function private.list_api_keys(include_dead boolean)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('keys:manage');
begin
  return (
    select coalesce(
      jsonb_agg(private.api_key_json(api_key) order by api_key.created_at, api_key.key_id), '[]')
    from private.api_keys as api_key
    inner join private.accounts as account on account.account_no = api_key.account_no
    where account.account_id = v_account_id
      and (list_api_keys.include_dead or private.is_live(api_key))
  );
end
$$;

comment on function private.list_api_keys is 'Body of public.list_api_keys.';

create function private.revoke_api_key(key_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('keys:manage');
  v_key private.api_keys;
begin
  update private.api_keys as api_key
  set revoked_at = coalesce(api_key.revoked_at, private.clock())
  from private.accounts as account
  where account.account_id = v_account_id
    and api_key.account_no = account.account_no
    and api_key.key_id = revoke_api_key.key_id
  returning api_key.* into v_key;
  if not found then
    perform private.raise_error(
      404, 'not_found', 'Cannot revoke the key: this account has no such key.',
      'List the keys of the account with list_api_keys.');
  end if;
  return private.api_key_json(v_key);
end
$$;

comment on function private.revoke_api_key is 'Body of public.revoke_api_key.';

create function private.account_of_api_key(api_key private.api_keys)
returns uuid
language sql
stable
security definer
set search_path = ''
as $$
  select account.account_id
  from private.accounts as account
  inner join auth.users as member on member.id = account.account_id
  where account.account_no = api_key.account_no
    and member.deleted_at is null
    and coalesce(member.banned_until <= private.clock(), true)
$$;

comment on function private.account_of_api_key is
'The account that a key is of; null when its user was deleted, or is banned now.';

create function private.pay_for_exchange(api_key private.api_keys)
returns boolean
language plpgsql
set search_path = ''
as $$
declare
  v_now timestamptz := private.clock();
begin
  update private.api_keys as payer
  set last_used_at = v_now,
    exchanges_paid_until = greatest(payer.exchanges_paid_until, v_now) + interval '1 second'
  where payer.key_id = pay_for_exchange.api_key.key_id
    -- Looked at before the row is locked: who asks too often waits for nobody and writes nothing.
    and payer.exchanges_paid_until <= v_now + interval '1 minute' - interval '1 second'
    and private.is_live(payer);
  return found;
end
$$;

comment on function private.pay_for_exchange is
'Writes an exchange of the key down; false, with nothing written, when there were too many of late (or
when the key died just now: the next attempt is told so).';

create function private.exchange_api_key(key_hash text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_now timestamptz := private.clock();
  v_key private.api_keys;
  v_account_id uuid;
begin
  select api_key.* into v_key
  from private.api_keys as api_key
  where api_key.key_hash = decode(exchange_api_key.key_hash, 'hex') and private.is_live(api_key);
  v_account_id := private.account_of_api_key(v_key);
  if v_account_id is null then
    perform private.raise_error(
      401, 'invalid_api_key', 'Cannot exchange the key: there is no such key, it was revoked, or it '
        || 'has expired.', 'Create another key with create_api_key.');
  end if;
  if not private.pay_for_exchange(v_key) then
    perform private.raise_error(
      429, 'too_many_requests', 'Cannot exchange the key so often: once a second, or 60 at once.',
      'Use each token until shortly before it ends, in all threads.');
  end if;
  return jsonb_build_object(
    'account_id', v_account_id,
    'key_id', v_key.key_id,
    'scope', array_to_string(v_key.scopes, ' '),
    'expires_in', ceil(extract(epoch from least(v_key.expires_at - v_now, '15 minutes'))));
end
$$;

comment on function private.exchange_api_key is 'Body of public.exchange_api_key.';

create function public.create_api_key(
  name text,
  scopes text[],
  expires_at timestamptz default null
)
returns jsonb
language sql
set search_path = ''
as 'select private.create_api_key(name, scopes, expires_at)';

comment on function public.create_api_key is
'Makes a key of the caller''s account. The answer''s api_key is the key itself, shown only this once.
Without expires_at it lives until it is revoked. For signed-in users, whose session must go on: no key
can make keys.';

create function public.list_api_keys(include_dead boolean default false)
returns jsonb
language sql
stable
set search_path = ''
as 'select private.list_api_keys(include_dead)';

comment on function public.list_api_keys is
'The keys of the caller''s account, oldest first; with include_dead also those that were revoked or
have expired in the last 90 days.';

create function public.revoke_api_key(key_id uuid)
returns jsonb
language sql
set search_path = ''
as 'select private.revoke_api_key(key_id)';

comment on function public.revoke_api_key is
'Ends a key of the caller''s account, and every token that was made of it. Twice changes nothing.';

create function public.exchange_api_key(key_hash text)
returns jsonb
language sql
set search_path = ''
as 'select private.exchange_api_key(key_hash)';

comment on function public.exchange_api_key is
'What the token of a key must say: account, scope, and for how many seconds. key_hash is its SHA-256
in hex: the key itself never comes here. For the edge function: service_role only.';

alter table private.api_keys enable row level security;

grant execute on function private.api_key_is_live to authenticated, service_role;
grant execute on function private.create_api_key to authenticated;
grant execute on function private.list_api_keys to authenticated;
grant execute on function private.revoke_api_key to authenticated;
grant execute on function private.exchange_api_key to service_role;
grant execute on function public.create_api_key to authenticated;
grant execute on function public.list_api_keys to authenticated;
grant execute on function public.revoke_api_key to authenticated;
grant execute on function public.exchange_api_key to service_role;
