begin;
\ir ../helpers.psql
select plan(16);

select tests.account('free') as alice, tests.account('free') as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader,
  gen_random_uuid() as request \gset
select tests.signals(:'trader', 3) || '[null]' as batch \gset

-- json, not jsonb: the bytes of the answer.
create function tests.answer(account_id uuid, request_id uuid, signals jsonb)
returns text
language sql
as $$
  select tests.ask(answer.account_id, format(
    'select to_jsonb(public.ingest_signals(%L, %L)::text)', answer.request_id, answer.signals))
    #>> '{}'
$$;

create function tests.state(account_id uuid)
returns text
language sql
as $$
  select concat_ws(' ', account.last_seq, account.day_used, account.minute_used,
    (select count(*) from private.batches where batches.account_no = account.account_no),
    (select count(*) from private.signals where signals.account_no = account.account_no),
    (select count(*) from realtime.messages where topic like '%' || account.account_id || '%'))
  from private.accounts as account
  where account.account_id = state.account_id
$$;

select tests.answer(:'alice', :'request', :'batch') as first \gset
select is(tests.state(:'alice'), '3 3 3 1 3 1', 'three signals are stored and told once');
select is(
  :'first'::jsonb - 'items', jsonb_build_object(
    'request_id', :'request', 'accepted', 3, 'duplicate', 0, 'rejected', 1, 'first_seq', 1,
    'last_seq', 3), 'the verdict names its request');

select is(
  tests.answer(:'alice', :'request', :'batch'), :'first', 'the same again: the same bytes');
select is(tests.state(:'alice'), '3 3 3 1 3 1', 'and nothing changed');
select is(
  tests.answer(:'alice', :'request', replace(:'batch', ', ', ' ,   ')::jsonb), :'first',
  'other spaces are the same payload');

select is(
  tests.refusal(:'alice', format(
    'select public.ingest_signals(%L, %L)', :'request', changed)), 'PT409 request_id_reused', why)
from (values
  (tests.signals(:'trader', 3), 'one signal less is another payload'),
  (jsonb_set(:'batch', '{0,price}', '64000.6'), 'so is another price'),
  (tests.signals(:'trader', 3, 2) || '[null]', 'or other times'),
  ('[]', 'or an empty batch')
) as changed (changed, why);
select is(tests.state(:'alice'), '3 3 3 1 3 1', 'a refused reuse changes nothing');

select tests.ingest(:'alice', tests.signals(:'trader', 97, 4)) ->> 'accepted' as filled \gset
select is(
  tests.answer(:'alice', :'request', :'batch'), :'first',
  'with the quota used up the replay is still answered as at first');
select tests.ask(:'alice', format('select public.archive_trader(%L)', :'trader')) as archived \gset
select tests.set_clock(now() + interval '13 days') is null as later \gset
select is(
  tests.answer(:'alice', :'request', :'batch'), :'first',
  'and 13 days later, with the trader archived');

select is(
  tests.refused(tests.answer(:'bob', :'request', :'batch')::jsonb),
  array['0 stale', '1 stale', '2 stale', '3 invalid_signal'],
  'the same request_id of another account is another request');
select is(
  (select count(*)::integer from private.batches where request_id = :'request'), 2,
  'the ledger has a row of each');

-- Whether the partition is dropped by then or not.
select tests.set_clock(now() + interval '15 days') is null as forgotten \gset
select is(
  tests.refused(tests.answer(:'alice', :'request', :'batch')::jsonb),
  array['0 stale', '1 stale', '2 stale', '3 invalid_signal'],
  'after 14 days it is a request like any other, and all in it is stale');
select is(
  (select last_seq from private.accounts where account_id = :'alice'), 100::bigint,
  'so nothing is stored again');

select * from finish();
rollback;
