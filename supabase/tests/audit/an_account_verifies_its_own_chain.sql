begin;
\ir ../helpers.psql
select plan(12);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader \gset
select count(tests.ingest(:'alice', tests.signals(:'trader', 2, number * 2 + 1))) as batches
from generate_series(0, 4) as number \gset

select is(
  tests.ask(:'alice', 'select public.verify_audit()'),
  jsonb_build_object(
    'account_id', :'alice', 'from_link', 1, 'to_link', 5, 'next_link', null, 'checked_links', 5,
    'dropped_links', 0, 'intact', true, 'broken', null),
  'an account verifies its chain');
select is(
  tests.ask(:'alice', 'select public.verify_audit(from_link => 3, to_link => 4)')
    - array['account_id', 'dropped_links'],
  '{"from_link": 3, "to_link": 4, "next_link": null, "checked_links": 2, "intact": true,
    "broken": null}', 'or a part of it');
select is(
  tests.refusal(:'alice', format('select public.verify_audit(%L)', :'bob')), 'PT404 not_found',
  'not that of another account');
select is(
  tests.refusal(:'alice', 'select public.verify_audit()', 'signals:write'),
  'PT403 insufficient_scope', 'and not without the scope');
select is(
  tests.ask(null, format('select public.verify_audit(%L)', :'alice'), as_role => 'service_role')
    ->> 'intact', 'true', 'an operator verifies any');
select is(
  tests.refusal(null, format('select public.verify_audit(%L)', gen_random_uuid()),
    as_role => 'service_role'), 'PT404 not_found', 'that there is');

select is(
  tests.ask(:'alice', 'select public.audit_head()'),
  (select jsonb_build_object('account_id', :'alice', 'link_no', 5, 'hash',
    encode(chain_hash, 'hex'), 'last_seq', 10, 'last_event_seq', 0)
    from private.accounts where account_id = :'alice'), 'an account is told its head');
select is(
  tests.refusal(:'alice', 'select public.audit_heads()'), '42501', 'but not all heads');
select is(
  tests.ask(null, 'select public.audit_heads()', as_role => 'service_role')
    @> jsonb_build_array(tests.ask(:'alice', 'select public.audit_head()')), true,
  'which operators are told');
select is(
  tests.ask(null, format('select public.audit_heads(%L)', :'alice'), as_role => 'service_role')
    @> jsonb_build_array(jsonb_build_object('account_id', :'alice')), false, 'a page after another');

-- More than one answer checks: it goes on where the one before ended.
select count(tests.ingest(:'alice', tests.signals(:'trader', 4000, number * 4000 + 100))) as batches
from generate_series(0, 5) as number \gset
create temporary table answer as
with recursive answer as (
  select private.verify_audit(:'alice', 1, null)::jsonb as answer
  union all
  select private.verify_audit(:'alice', (answer.answer ->> 'next_link')::bigint, null)::jsonb
  from answer where answer.answer ->> 'next_link' is not null
)
select answer from answer;
select cmp_ok((select count(*)::integer from answer), '>', 1, 'a long chain takes several answers');
select is(
  (select array[min((answer ->> 'from_link')::integer), max((answer ->> 'to_link')::integer),
      sum((answer ->> 'checked_links')::integer)::integer]
    from answer where (answer ->> 'intact')::boolean), array[1, 11, 11],
  'which together check each link once');

select * from finish();
rollback;
