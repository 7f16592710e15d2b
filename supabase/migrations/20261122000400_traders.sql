-- Traders: the running strategies of an account, which signals belong to.
-- Names are unique among the active traders of an account, so a restarted worker finds its trader.
-- Must never break: a trader never moves to another account, and is archived rather than deleted.

create table private.traders (
  trader_no integer generated always as identity primary key,
  trader_id uuid not null default gen_random_uuid() unique,
  account_no integer not null references private.accounts (account_no),
  name text not null,
  own_channel boolean not null default false,
  created_at timestamptz not null default now(),
  archived_at timestamptz,
  constraint name_is_1_to_64_characters_without_outer_space check (
    char_length(name) between 1 and 64 and name = btrim(name) and name !~ '[[:cntrl:]]'
  )
);

create unique index traders_active_name_idx on private.traders (account_no, name)
where archived_at is null;
create index traders_account_no_created_at_idx on private.traders (account_no, created_at);

comment on table private.traders is 'The running strategies of an account.';
comment on column private.traders.own_channel is
'True when new signals of this trader are also broadcast to trader:<trader_id>:signals.';
comment on column private.traders.archived_at is 'Since when the trader takes no more signals.';

create function private.trader_json(trader private.traders)
returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'trader_id', trader.trader_id,
    'name', trader.name,
    'own_channel', trader.own_channel,
    'created_at', trader.created_at,
    'archived_at', trader.archived_at)
$$;

comment on function private.trader_json is 'A trader as clients see it.';

create function private.require_name(
  name text,
  owner text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if name is null or char_length(name) not between 1 and 64
    or name <> btrim(name) or name ~ '[[:cntrl:]]' then
    perform private.raise_error(
      400, 'invalid_request',
      'Cannot use this name: ' || owner || '''s name has 1 to 64 characters.',
      'Use 1 to 64 characters, with no space at either end and no control character.');
  end if;
end
$$;

comment on function private.require_name is 'PT400 unless the text can name this owner (''a trader'').';

create function private.require_room_for_trader(account private.accounts)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_most integer := (
    select tier.traders from private.tiers as tier where tier.tier = account.tier);
begin
  if (
    select count(*) >= v_most
    from private.traders as trader
    where trader.account_no = account.account_no and trader.archived_at is null
  ) then
    perform private.raise_error(
      403, 'trader_limit_reached',
      'Cannot create the trader: the account has as many traders as its tier allows.',
      'Archive a trader or move the account to a higher tier.');
  end if;
  -- Archived traders stay for ever: who makes and archives them in turn must not fill the table.
  if (
    select count(*) >= 2 * v_most
    from private.traders as trader
    where trader.account_no = account.account_no
      and trader.created_at > private.clock() - interval '1 day'
  ) then
    perform private.raise_error(
      403, 'trader_limit_reached',
      'Cannot create the trader: in a day an account makes at most twice as many as it may have.',
      'Use a trader again: create_trader finds an active one by its name.');
  end if;
end
$$;

comment on function private.require_room_for_trader is
'PT403 when the account has as many active traders as its tier allows, or made twice as many in a day.';

create function private.create_trader(
  name text,
  own_channel boolean
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account private.accounts := private.lock_account(private.caller_id('signals:write'));
  v_trader private.traders;
begin
  perform private.require_name(create_trader.name, 'a trader');
  select trader.* into v_trader
  from private.traders as trader
  where trader.account_no = v_account.account_no
    and trader.name = create_trader.name
    and trader.archived_at is null;
  if not found then
    perform private.require_room_for_trader(v_account);
    insert into private.traders (account_no, name, own_channel)
    values (v_account.account_no, create_trader.name, coalesce(create_trader.own_channel, false))
    returning * into v_trader;
  end if;
  return private.trader_json(v_trader);
end
$$;

comment on function private.create_trader is 'Body of public.create_trader.';

create function private.change_trader(
  trader_id uuid,
  new_name text,
  archive boolean
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  -- An archived trader never comes back, so no API key may archive one.
  v_account private.accounts := private.lock_account(private.caller_id(
    case when change_trader.archive then 'traders:manage' else 'signals:write' end));
  v_trader private.traders;
begin
  if not change_trader.archive then
    perform private.require_name(change_trader.new_name, 'a trader');
  end if;
  update private.traders as trader
  set
    name = coalesce(change_trader.new_name, trader.name),
    archived_at = case
      when change_trader.archive then coalesce(trader.archived_at, private.clock())
      else trader.archived_at
    end
  where trader.account_no = v_account.account_no
    and trader.trader_id = change_trader.trader_id
  returning trader.* into v_trader;
  if not found then
    perform private.raise_error(
      404, 'not_found', 'Cannot change the trader: this account has no such trader.',
      'List the traders of the account with list_traders.');
  end if;
  return private.trader_json(v_trader);
exception
  when unique_violation then
    perform private.raise_error(
      409, 'trader_name_taken', 'Cannot rename the trader: another active trader has this name.',
      'Choose another name, or archive the other trader first.');
    return null;
end
$$;

comment on function private.change_trader is 'Body of public.rename_trader and public.archive_trader.';

create function public.create_trader(
  name text,
  own_channel boolean default false
)
returns json
language sql
set search_path = ''
as 'select private.create_trader(name, own_channel)';

comment on function public.create_trader is
'Makes a trader of the caller''s account, or returns the active one that has this name already.';

create function public.rename_trader(
  trader_id uuid,
  name text
)
returns json
language sql
set search_path = ''
as 'select private.change_trader(trader_id, name, false)';

comment on function public.rename_trader is 'Renames a trader of the caller''s account.';

create function public.archive_trader(trader_id uuid)
returns json
language sql
set search_path = ''
as 'select private.change_trader(trader_id, null, true)';

comment on function public.archive_trader is
'Retires a trader for good: it takes no more signals, its history stays. Archiving twice changes
nothing. For signed-in users: no key can archive.';

create function public.list_traders(include_archived boolean default false)
returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(private.trader_json(trader) order by trader.created_at, trader.trader_no), '[]')
  from private.traders as trader
  where trader.account_no = (select private.caller_account_no('signals:read'))
    and (list_traders.include_archived or trader.archived_at is null)
    and (select private.caller_id('signals:read')) is not null
$$;

comment on function public.list_traders is 'The traders of the caller''s account, oldest first.';

alter table private.traders enable row level security;

create policy members_read_own_traders on private.traders
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant select on private.traders to authenticated, service_role;

grant execute on function private.trader_json to authenticated;
grant execute on function private.create_trader to authenticated;
grant execute on function private.change_trader to authenticated;
grant execute on function public.create_trader to authenticated;
grant execute on function public.rename_trader to authenticated;
grant execute on function public.archive_trader to authenticated;
grant execute on function public.list_traders to authenticated;
