begin;
\ir ../helpers.psql
select plan(15);

select tests.account('free') as alice, tests.account('free') as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader,
  gen_random_uuid() as request \gset
select tests.signal(:'trader') as signal, tests.signal(:'foreign_trader') as foreign_signal \gset
select tests.ingest(:'alice', tests.signals(:'trader', 99) || :'signal') ->> 'accepted' as stored,
  tests.ingest(:'bob', jsonb_build_array(:'foreign_signal'::jsonb)) ->> 'accepted' as told \gset
select jsonb_build_array(
  tests.change(:'signal', 'analyzed'), tests.change(:'signal', 'analyzed'),
  tests.change(:'signal', 'closed'), tests.change(:'signal', 'executed'), null,
  tests.change(:'signal', 'closed')) as changes \gset

create function tests.answer(account_id uuid, request_id uuid, changes jsonb)
returns text
language sql
as $$
  select tests.ask(answer.account_id, format(
    'select to_jsonb(public.advance_signals(%L, %L)::text)', answer.request_id, answer.changes))
    #>> '{}'
$$;

create function tests.state(account_id uuid)
returns text
language sql
as $$
  select concat_ws(' ', account.last_seq, account.last_event_seq, account.day_used,
    (select count(*) from private.advances where advances.account_no = account.account_no),
    (select count(*) from private.signal_events as event
      where event.account_no = account.account_no),
    (select count(*) from audit.links where links.account_no = account.account_no
      and kind = 'events'),
    (select count(*) from realtime.messages where event = 'signals_advanced'
      and topic like '%' || account.account_id || '%'))
  from private.accounts as account
  where account.account_id = state.account_id
$$;

select tests.answer(:'alice', :'request', :'changes') as first \gset
select is(
  :'first'::jsonb - 'items', jsonb_build_object(
    'request_id', :'request', 'accepted', 3, 'duplicate', 1, 'rejected', 2, 'first_seq', 1,
    'last_seq', 3), 'the changes of one signal are applied in their order');
select is(
  tests.refused(:'first'),
  array['1 duplicate_change', '2 invalid_transition', '4 invalid_change'],
  'those that are not possible are refused');
select is(
  :'first'::jsonb #>> '{items,1,message}',
  (select message from private.item_codes where code = 'invalid_transition'), 'with the message');
select is(
  tests.state(:'alice'), '100 3 100 1 3 1 1',
  'three events, one ledger row, one link, one broadcast; the quota is not used');

select is(tests.answer(:'alice', :'request', :'changes'), :'first', 'again: the same bytes');
select is(tests.state(:'alice'), '100 3 100 1 3 1 1', 'and nothing changed');
select is(
  tests.refusal(:'alice', format(
    'select public.advance_signals(%L, %L)', :'request', changed)), 'PT409 request_id_reused', why)
from (values
  (:'changes'::jsonb - 0, 'one change less is another request'),
  (jsonb_set(:'changes', '{5,exit_price}', '1'), 'so is another price'),
  ('[]', 'or no change')
) as changed (changed, why);

select is(
  tests.answer(:'alice', gen_random_uuid(), '[]')::jsonb - 'request_id',
  '{"accepted": 0, "duplicate": 0, "rejected": 0, "first_seq": null, "last_seq": null, "items": []}',
  'no change is answered as well');
select is(tests.state(:'alice'), '100 3 100 2 3 1 1', 'and neither linked nor told');
select is(
  tests.answer(:'alice', gen_random_uuid(), jsonb_build_array(
    tests.change(:'signal', 'closed'), tests.change(:'signal', 'executed'),
    tests.change(:'signal', 'analyzed')))::jsonb ->> 'duplicate', '3',
  'in a new request all that was recorded is a duplicate');

select tests.ask(:'alice', format('select public.archive_trader(%L)', :'trader')) as archived \gset
select tests.set_clock(now() + interval '10 days') is null as later \gset
select is(
  tests.answer(:'alice', :'request', :'changes'), :'first',
  'ten days later, with the trader archived, the answer is the same');

select is(
  tests.refused(tests.answer(:'bob', :'request', :'changes')::jsonb),
  array['0 unknown_signal', '1 unknown_signal', '2 unknown_signal', '3 unknown_signal',
    '4 invalid_change', '5 unknown_signal'],
  'the same request_id of another account is another request');
select is(tests.state(:'bob'), '1 0 1 1 0 0 0', 'which changed nothing');

select * from finish();
rollback;
