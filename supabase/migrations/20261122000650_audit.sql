-- The audit chain: one link a batch, each with the digest of what was stored and the hash of the link before.
-- Whoever keeps an earlier head can prove later that nothing before it was changed, added or taken away.
-- Must never break: links are only appended, each as the successor of its account's head.

create schema audit;

comment on schema audit is 'Append-only evidence of what was stored. Not exposed through the Data API.';

revoke all on schema audit from public;
grant usage on schema audit to authenticated, service_role;

create table audit.links (
  link_no bigint not null,
  first_seq bigint not null,
  last_seq bigint not null,
  first_generated_at timestamptz not null,
  last_generated_at timestamptz not null,
  received_at timestamptz not null,
  account_no integer not null,
  kind text not null,
  digest bytea not null,
  hash bytea not null,
  primary key (account_no, link_no, received_at),
  constraint link_no_is_positive check (link_no > 0),
  constraint kind_is_known check (kind in ('signals', 'events')),
  constraint seq_range_is_not_empty check (first_seq <= last_seq),
  constraint digest_is_a_sha256 check (octet_length(digest) = 32),
  constraint hash_is_a_sha256 check (octet_length(hash) = 32)
) partition by range (received_at);

comment on table audit.links is
'One row per batch that stored something; link_no has no gap per account. The bytes that are hashed
are in docs/audit.md.';
comment on column audit.links.kind is
'What the digest is of: signals (first_seq and last_seq are their seq) or events (their event seq).';
comment on column audit.links.digest is 'SHA-256 of the stored values, in the order of seq.';
comment on column audit.links.hash is
'SHA-256 of the hash of the link before (empty for the first), the account, and this link''s columns.';

create function audit.link_hash(
  previous_hash bytea,
  account_id uuid,
  link audit.links
)
returns bytea
language plpgsql
stable
set search_path = ''
as $$
begin
  return sha256(record_send(row(
    previous_hash, account_id, link.link_no, link.kind, link.first_seq, link.last_seq,
    link.first_generated_at, link.last_generated_at, link.received_at, link.digest)));
end
$$;

comment on function audit.link_hash is 'The hash that a link must have behind the given one.';

create function audit.chain_link()
returns trigger
language plpgsql
set search_path = ''
as $$
declare
  v_account_id uuid;
  v_last_link_no bigint;
  v_chain_hash bytea;
begin
  select account.account_id, account.last_link_no, account.chain_hash
  into strict v_account_id, v_last_link_no, v_chain_hash
  from private.accounts as account
  where account.account_no = new.account_no
  for no key update;
  new.link_no := v_last_link_no + 1;
  new.hash := audit.link_hash(v_chain_hash, v_account_id, new);
  return new;
end
$$;

comment on function audit.chain_link is
'Makes each new link the successor of its account''s head, whatever the statement asks for.';

create function audit.refuse_change()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception using
    errcode = 'insufficient_privilege',
    message = format('Cannot %s audit.links: links are only appended.', lower(tg_op));
end
$$;

comment on function audit.refuse_change is 'Refuses update, delete and truncate, to the owner as well.';

create trigger chain_link before insert on audit.links
for each row execute function audit.chain_link();

create trigger refuse_change before update or delete on audit.links
for each row execute function audit.refuse_change();

-- Also in a session that says it replicates.
alter table audit.links enable always trigger chain_link;
alter table audit.links enable always trigger refuse_change;

create function audit.refuse_truncate(links regclass)
returns void
language plpgsql
set search_path = ''
as $$
begin
  execute format(
    'create or replace trigger refuse_truncate before truncate on %s '
    'for each statement execute function audit.refuse_change()', refuse_truncate.links);
  execute format(
    'alter table %s enable always trigger refuse_truncate', refuse_truncate.links);
end
$$;

comment on function audit.refuse_truncate is
'Refuses truncate of audit.links or of one partition. Partitions inherit row triggers, but not this
one: whoever makes a partition calls it.';

select audit.refuse_truncate('audit.links');

create function private.append_link(
  account private.accounts,
  kind text,
  first_seq bigint,
  last_seq bigint,
  first_generated_at timestamptz,
  last_generated_at timestamptz,
  received_at timestamptz,
  digest bytea
)
returns private.accounts
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := append_link.account;
begin
  insert into audit.links as link (
    account_no, kind, first_seq, last_seq, first_generated_at, last_generated_at, received_at, digest
  )
  values (
    v_account.account_no, append_link.kind, append_link.first_seq, append_link.last_seq,
    append_link.first_generated_at, append_link.last_generated_at, append_link.received_at,
    append_link.digest
  )
  returning link.link_no, link.hash into v_account.last_link_no, v_account.chain_hash;

  update private.accounts as head
  set
    last_seq = v_account.last_seq,
    day_started = v_account.day_started,
    day_used = v_account.day_used,
    minute_started = v_account.minute_started,
    minute_used = v_account.minute_used,
    packed_until = v_account.packed_until,
    last_event_seq = v_account.last_event_seq,
    expired_until = v_account.expired_until,
    last_link_no = v_account.last_link_no,
    chain_hash = v_account.chain_hash
  where head.account_no = v_account.account_no;
  return v_account;
end
$$;

comment on function private.append_link is
'Appends a link to the chain of the account, and writes the account''s row: as it is given (with its
new last_seq, last_event_seq, counters, packed_until) and with the new head. Returns the row as
written. The caller holds the lock of the account (private.lock_account) and has stored what the
digest is of (private.summary_of for signals, private.events_digest for events).';

alter table audit.links enable row level security;

create policy members_read_own_links on audit.links
for select to authenticated
using (account_no = (select private.caller_account_no('signals:read')));

grant select on audit.links to authenticated, service_role;
