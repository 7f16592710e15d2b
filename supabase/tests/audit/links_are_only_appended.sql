begin;
\ir ../helpers.psql
select plan(11);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 3)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', '[null]') ->> 'rejected' as refused \gset
select tests.ingest(:'alice', tests.signals(:'trader', 2, 9)) ->> 'accepted' as stored \gset
select account_no from private.accounts where account_id = :'alice' \gset

select results_eq(
  format('select link_no, kind, first_seq, last_seq, received_at from audit.links
    where account_no = %s order by link_no', :'account_no'),
  $$values (1::bigint, 'signals', 1::bigint, 3::bigint, now()), (2, 'signals', 4, 5, now())$$,
  'each batch that stored something has its link');
select is(
  (select row(last_link_no, chain_hash) from private.accounts where account_id = :'alice'),
  (select row(link_no, hash) from audit.links where account_no = :account_no and link_no = 2),
  'the account has the head');

-- The bytes of docs/audit.md, written out once more.
select is(
  (select digest from audit.links where account_no = :account_no and link_no = 1),
  (select sha256(string_agg(record_send(row(
      seq, trader_id, symbol::text, timeframe, generated_at, action, confidence, price, stop_loss,
      take_profit, valid_until, metadata::text)), '' order by seq))
    from public.signals where account_id = :'alice' and seq <= 3),
  'the digest is of the signals as a reader sees them');
select is(
  (select hash from audit.links where account_no = :account_no and link_no = 2),
  (select sha256(record_send(row(
      before.hash, :'alice'::uuid, link.link_no, link.kind, link.first_seq, link.last_seq,
      link.first_generated_at, link.last_generated_at, link.received_at, link.digest)))
    from audit.links as link
    inner join audit.links as before
      on before.account_no = link.account_no and before.link_no = link.link_no - 1
    where link.account_no = :account_no and link.link_no = 2),
  'the hash is of the hash before, the account and the link');

select throws_ok('update audit.links set digest = digest', '42501', null, 'no link is changed');
select throws_ok('delete from audit.links', '42501', null, 'or deleted');
select throws_ok('truncate audit.links', '42501', null, 'and the table is not truncated');
select is_empty(
  $$
    select inhrelid::regclass from pg_inherits
    where inhparent = 'audit.links'::regclass and not exists (
      select from pg_trigger
      where tgrelid = inhrelid and tgname = 'refuse_truncate' and tgenabled = 'A')
  $$, 'nor is any partition');
set local session_replication_role = replica;
select throws_ok('delete from audit.links', '42501', null, 'also in a session that replicates');
reset session_replication_role;

insert into audit.links (account_no, link_no, kind, first_seq, last_seq, first_generated_at,
  last_generated_at, received_at, digest, hash)
values (:account_no, 99, 'signals', 6, 6, now(), now(), now(), sha256(''), sha256(''));
select is(
  (select max(link_no) from audit.links where account_no = :account_no), 3::bigint,
  'whatever is inserted becomes the successor of the head');
select is(
  private.verify_audit(:'alice', 1, null) -> 'broken' ->> 'problem', 'content_changed',
  'and is found, since no signals belong to it');
select * from finish();
rollback;
