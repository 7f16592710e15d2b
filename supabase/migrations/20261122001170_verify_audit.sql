-- Verifying the audit chain: digests and hashes are computed again from what is stored, on any tier.
-- A part of the chain at a time, each in bounded work; heads are given out to be kept elsewhere.
-- Must never break: whatever differs is named at the first link where it does, and nothing is written.

create type private.checked_link as (
  link audit.links,
  digest bytea,
  signals bigint
);

comment on type private.checked_link is
'A link, with the digest of what is stored now in its range, and how many signals that are.';

create function private.checked_links(
  account_no integer,
  from_link bigint,
  to_link bigint
)
returns setof private.checked_link
language plpgsql
stable
set search_path = ''
as $$
declare
  v_links audit.links[];
  -- Of the links of signals, in the order of seq.
  v_first_seqs bigint[];
  v_last_seqs bigint[];
begin
  select
    array_agg(part.link order by part.number),
    array_agg((part.link).first_seq order by (part.link).first_seq)
      filter (where (part.link).kind = 'signals'),
    array_agg((part.link).last_seq order by (part.link).first_seq)
      filter (where (part.link).kind = 'signals')
  into v_links, v_first_seqs, v_last_seqs
  from (
    select
      each.link, row_number() over chain as number,
      sum((each.link).last_seq - (each.link).first_seq + 1) over chain as signals
    from (
      select link
      from audit.links as link
      where link.account_no = checked_links.account_no
        and link.link_no between checked_links.from_link and checked_links.to_link
      order by link.link_no, link.received_at
      limit 1000
    ) as each
    window chain as (order by (each.link).link_no, (each.link).received_at)
  ) as part
  -- Bounded work: about 20,000 signals, and at least one link.
  where part.signals <= 20000 or part.number = 1;

  return query
    with stored as (
      select
        v_first_seqs[place.number] as first_seq,
        array_agg((
          signal.seq - v_first_seqs[place.number], signal.trader_no, trader.trader_id,
          signal.symbol, signal.timeframe, signal.generated_at, signal.action, signal.confidence,
          signal.price, signal.stop_loss, signal.take_profit, signal.valid_until,
          signal.metadata, null
        )::private.candidate order by signal.seq) as signals
      from private.signals_by_seq(
        checked_links.account_no, v_first_seqs[1], v_last_seqs[cardinality(v_last_seqs)]
      ) as signal
      left join private.traders as trader on trader.trader_no = signal.trader_no
      cross join lateral width_bucket(signal.seq, v_first_seqs) as place (number)
      where signal.seq <= v_last_seqs[place.number]
      group by place.number
    )
    select
      each,
      case each.kind
        when 'events'
          then private.events_digest(checked_links.account_no, each.first_seq, each.last_seq)
        else (private.summary_of(stored.signals, each.first_seq)).digest
      end,
      coalesce(cardinality(stored.signals), 0)::bigint
    from unnest(v_links) as each
    left join stored on each.kind = 'signals' and stored.first_seq = each.first_seq
    order by each.link_no, each.received_at;
end
$$;

comment on function private.checked_links is
'The next links of a chain, at most 1000 and about 20,000 signals, with what is stored for them now.';

create function private.link_problem(
  checked private.checked_link,
  link_no bigint,
  previous_hash bytea,
  next_seq bigint,
  account_id uuid
)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_link audit.links := checked.link;
begin
  return case
    when v_link.link_no > link_problem.link_no then 'link_missing'
    when v_link.link_no < link_problem.link_no then 'link_twice'
    -- Without the link before there is nothing to compare the hash with.
    when v_link.hash <> audit.link_hash(previous_hash, account_id, v_link)
      then case when v_link.first_seq <> next_seq then 'order_changed' else 'link_altered' end
    when v_link.first_seq <> next_seq then 'order_changed'
    when v_link.digest = checked.digest then null
    -- Retention of any tier, since an account may have changed its tier.
    when v_link.kind = 'signals' and v_link.first_generated_at < (
      select max(private.kept_since('signals', tier.tier)) from private.tiers as tier)
      and checked.signals < v_link.last_seq - v_link.first_seq + 1 then 'dropped'
    else 'content_changed'
  end;
end
$$;

comment on function private.link_problem is
'What is wrong with a link that should be number link_no and begin at next_seq (null: not known); null
when nothing is; dropped when retention took signals of it, so that only its hash can be checked.';

create function private.head_problem(account private.accounts)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_last audit.links;
  v_last_seq bigint;
begin
  select link.* into v_last
  from audit.links as link
  where link.account_no = account.account_no
  order by link.link_no desc, link.received_at desc
  limit 1;
  if account.last_link_no <> coalesce(v_last.link_no, 0) then
    return json_build_object(
      'link_no', least(account.last_link_no, coalesce(v_last.link_no, 0)) + 1,
      'problem', case when account.last_link_no > coalesce(v_last.link_no, 0)
        then 'link_missing' else 'head_mismatch' end);
  end if;
  if account.chain_hash <> coalesce(v_last.hash, '\x') then
    return json_build_object('link_no', v_last.link_no, 'problem', 'head_mismatch');
  end if;
  select link.last_seq into v_last_seq
  from audit.links as link
  where link.account_no = account.account_no and link.kind = 'signals'
  order by link.link_no desc
  limit 1;
  if account.last_seq <> coalesce(v_last_seq, 0) then
    return json_build_object('link_no', account.last_link_no, 'problem', 'head_mismatch');
  end if;
  if exists (
    select from private.signals_by_seq(
      account.account_no, account.last_seq + 1, 9223372036854775807)
  ) then
    return json_build_object('link_no', account.last_link_no + 1, 'problem', 'link_missing');
  end if;
  return null;
end
$$;

comment on function private.head_problem is
'Where the account''s row and the end of its chain differ; null when they do not.';

create function private.verify_audit(
  account_id uuid,
  from_link bigint,
  to_link bigint
)
returns json
language plpgsql
stable
security definer
set search_path = ''
set timezone = 'UTC'
as $$
declare
  v_account private.accounts;
  v_checked private.checked_link;
  v_link audit.links;
  v_link_no bigint := greatest(verify_audit.from_link, 1);
  v_to_link bigint := coalesce(verify_audit.to_link, 9223372036854775807);
  v_previous_hash bytea := bytea '\x';
  v_next_seqs jsonb := jsonb '{}';
  v_problem text;
  v_broken json;
  v_checked_count bigint := 0;
  v_dropped bigint := 0;
  v_has_more boolean;
begin
  select account.* into v_account
  from private.accounts as account
  where account.account_id = verify_audit.account_id;
  if not found then
    perform private.raise_error(
      404, 'not_found', 'Cannot verify the audit chain: there is no such account.',
      'An account begins at its first use.');
  end if;
  if v_link_no > 1 then
    select link.hash into v_previous_hash
    from audit.links as link
    where link.account_no = v_account.account_no and link.link_no = v_link_no - 1;
  else
    v_next_seqs := '{"signals": 1, "events": 1}';
  end if;

  for v_checked in
    select checked.*
    from private.checked_links(v_account.account_no, v_link_no, v_to_link) as checked
  loop
    v_link := v_checked.link;
    v_problem := private.link_problem(
      v_checked, v_link_no, v_previous_hash, (v_next_seqs ->> v_link.kind)::bigint,
      v_account.account_id);
    if v_problem = 'dropped' then
      v_dropped := v_dropped + 1;
    elsif v_problem is not null then
      v_broken := json_build_object('link_no', v_link_no, 'problem', v_problem);
      exit;
    end if;
    v_checked_count := v_checked_count + 1;
    v_link_no := v_link_no + 1;
    v_previous_hash := v_link.hash;
    v_next_seqs := v_next_seqs || jsonb_build_object(v_link.kind, v_link.last_seq + 1);
  end loop;

  v_has_more := exists (
    select from audit.links as link
    where link.account_no = v_account.account_no and link.link_no >= v_link_no);
  if v_broken is null and not v_has_more then
    v_broken := private.head_problem(v_account);
  end if;
  return json_build_object(
    'account_id', v_account.account_id,
    'from_link', greatest(verify_audit.from_link, 1),
    'to_link', v_link_no - 1,
    'next_link', case
      when v_broken is null and v_has_more and v_link_no <= v_to_link then v_link_no end,
    'checked_links', v_checked_count,
    'dropped_links', v_dropped,
    'intact', v_broken is null,
    'broken', v_broken);
end
$$;

comment on function private.verify_audit is 'Body of public.verify_audit, for operators.';

create function private.verify_own_audit(
  account_id uuid,
  from_link bigint,
  to_link bigint
)
returns json
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
begin
  if verify_own_audit.account_id <> v_account_id then
    perform private.raise_error(
      404, 'not_found', 'Cannot verify the audit chain: there is no such account.',
      'Leave account_id out: an account verifies its own chain.');
  end if;
  return private.verify_audit(
    v_account_id, verify_own_audit.from_link, verify_own_audit.to_link);
end
$$;

comment on function private.verify_own_audit is 'Body of public.verify_audit, for an account.';

create function public.verify_audit(
  account_id uuid default null,
  from_link bigint default 1,
  to_link bigint default null
)
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  if current_user = 'authenticated' then
    return private.verify_own_audit(account_id, from_link, to_link);
  end if;
  return private.verify_audit(account_id, from_link, to_link);
end
$$;

comment on function public.verify_audit is
'Checks the audit chain from from_link on against what is stored, and names the first broken link.
Bounded: when next_link is not null, go on there. An account verifies its own chain, service_role any.';

create function private.head_json(account private.accounts)
returns json
language sql
stable
set search_path = ''
as $$
  select json_build_object(
    'account_id', account.account_id, 'link_no', account.last_link_no,
    'hash', encode(account.chain_hash, 'hex'), 'last_seq', account.last_seq,
    'last_event_seq', account.last_event_seq)
$$;

comment on function private.head_json is 'The head of an audit chain as it is given out.';

create function public.audit_head()
returns json
language sql
stable
set search_path = ''
as $$
  select private.head_json(account)
  from private.accounts as account
  where account.account_id = (select private.caller_id('signals:read'))
$$;

comment on function public.audit_head is
'The head of the caller''s audit chain; null before its first use. Kept elsewhere, it proves later that
nothing up to it was changed.';

create function public.audit_heads(
  after uuid default null,
  page_size integer default 1000
)
returns json
language sql
stable
set search_path = ''
as $$
  select coalesce(json_agg(private.head_json(page.account) order by (page.account).account_id), '[]')
  from (
    select account
    from private.accounts as account
    where account.last_link_no > 0
      and (audit_heads.after is null or account.account_id > audit_heads.after)
    order by account.account_id
    limit least(greatest(audit_heads.page_size, 1), 10000)
  ) as page
$$;

comment on function public.audit_heads is
'The heads of all chains, a page of accounts after the given one. For operators: service_role only.';

grant execute on function private.verify_own_audit to authenticated;
grant execute on function private.verify_audit to service_role;
grant execute on function private.head_json to authenticated, service_role;
grant execute on function public.verify_audit to authenticated, service_role;
grant execute on function public.audit_head to authenticated;
grant execute on function public.audit_heads to service_role;
