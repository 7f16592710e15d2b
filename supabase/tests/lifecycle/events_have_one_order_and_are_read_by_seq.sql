begin;
\ir ../helpers.psql
select plan(27);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.signals(:'trader', 5) as signals, tests.signals(:'foreign_trader', 2) as foreign_signals
\gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored,
  tests.ingest(:'bob', :'foreign_signals') ->> 'accepted' as told \gset

create function tests.step(account_id uuid, signal jsonb, status text, fields jsonb default '{}')
returns jsonb
language sql
as $$
  select tests.advance(step.account_id, jsonb_build_array(
    tests.change(step.signal, step.status, step.fields)))
$$;

select tests.advance(:'alice', jsonb_build_array(
  tests.change(:'signals'::jsonb -> 0, 'analyzed', '{"reason": "spread is small"}'), 1,
  tests.change(:'signals'::jsonb -> 1, 'rejected'))) as verdict \gset
select is(
  :'verdict'::jsonb - array['request_id', 'items'],
  '{"accepted": 2, "duplicate": 0, "rejected": 1, "first_seq": 1, "last_seq": 2}',
  'the verdict names the event seq of what was accepted');
select is(
  tests.step(:'bob', :'foreign_signals'::jsonb -> 1, 'analyzed') ->> 'first_seq', '1',
  'another account has its own event seq');
select is(
  tests.step(:'alice', :'signals'::jsonb -> 0, 'executed', jsonb_build_object(
    'entry_price', 64001.5, 'occurred_at', tests.iso(private.clock() - interval '1 second')))
    ->> 'first_seq', '3', 'event seq goes on without a gap');
select is(
  tests.step(:'alice', :'signals'::jsonb -> 0, 'closed',
    '{"exit_price": 67200, "close_reason": "take_profit", "return": 0.0489, "fees": 12.5}')
    ->> 'last_seq', '4', 'to the end');

-- query_events.
select tests.ask(:'alice', 'select public.query_events()') as page \gset
select is(tests.pluck(:'page'::jsonb -> 'events', 'seq'), array['1', '2', '3', '4'], 'all, by seq');
select is(:'page'::jsonb ->> 'last_seq', '4', 'with the last seq of the account');
select is(
  tests.pluck(:'page'::jsonb -> 'events', 'status'),
  array['analyzed', 'rejected', 'executed', 'closed'], 'each says which status was reached');
select is(
  tests.pluck(:'page'::jsonb -> 'events', 'signal_id'),
  (select array[
    tests.ask(:'alice', 'select to_jsonb(signal_id) from public.signals where seq = 1') #>> '{}',
    tests.ask(:'alice', 'select to_jsonb(signal_id) from public.signals where seq = 2') #>> '{}',
    tests.ask(:'alice', 'select to_jsonb(signal_id) from public.signals where seq = 1') #>> '{}',
    tests.ask(:'alice', 'select to_jsonb(signal_id) from public.signals where seq = 1') #>> '{}']),
  'and of which signal');
select is(
  (:'page'::jsonb #> '{events,3}') - array['signal_id', 'generated_at', 'occurred_at', 'received_at'],
  jsonb_build_object(
    'seq', 4, 'status', 'closed', 'signal_seq', 1, 'trader_id', :'trader', 'symbol', 'BTC/USD',
    'timeframe', '1m', 'entry_price', null, 'exit_price', 67200, 'close_reason', 'take_profit',
    'return', 0.0489, 'fees', 12.5, 'reason', null, 'expired_seqs', null),
  'an event has the fields of its change');
select is(
  (:'page'::jsonb #>> '{events,2,occurred_at}')::timestamptz,
  private.clock() - interval '1 second', 'occurred_at is as it was reported');
select is(
  (:'page'::jsonb #>> '{events,3,occurred_at}')::timestamptz, private.clock(),
  'or the time at which it came');
select is(
  tests.pluck(tests.ask(:'alice', 'select public.query_events(1, 2)') -> 'events', 'seq'),
  array['2', '3'], 'a page follows after_seq');
select is(
  tests.ask(:'alice', 'select public.query_events(3, 1, true)') #> '{events,0}',
  (:'page'::jsonb #> '{events,3}') || jsonb_build_object('signal', (
    select signal - 'outcome'
    from jsonb_array_elements(
      tests.ask(:'alice', 'select public.query_signals()') -> 'signals') as signal
    where signal ->> 'seq' = '1')),
  'with the signal as a query gives it, if asked');
select is(
  tests.ask(:'alice', 'select public.query_events(4)'), '{"events": [], "last_seq": 4}'::jsonb,
  'after the last there is none');
select is(
  tests.refusal(:'alice', query), 'PT400 invalid_filter', query)
from unnest(array[
  'select public.query_events(-1)', 'select public.query_events(null)',
  'select public.query_events(0, 0)', 'select public.query_events(0, 1001)']) as query;
select is(
  tests.pluck(tests.ask(:'bob', 'select public.query_events()') -> 'events', 'signal_seq'),
  array['2'], 'bob reads his own events only');

-- Status and outcome of signals.
create function tests.statuses(account_id uuid)
returns jsonb
language sql
as $$
  select tests.ask(statuses.account_id, $query$
    select jsonb_agg(to_jsonb(each) - array['account_no', 'generated_at'] order by each.seq)
    from private.statuses_of(
      array(select signal from private.signals as signal)) as each
  $query$)
$$;
select is(
  tests.pluck(tests.statuses(:'alice'), 'status'),
  array['closed', 'rejected', 'generated', 'generated', 'generated'], 'the status of each signal');
select is(
  tests.statuses(:'alice') -> 0, jsonb_build_object(
    'seq', 1, 'status', 'closed', 'status_since', private.clock(), 'archived', false,
    'entry_price', 64001.5, 'exit_price', 67200, 'close_reason', 'take_profit', 'return', 0.0489,
    'fees', 12.5, 'reason', null),
  'with the outcome of all its events');
select is(
  (tests.statuses(:'alice') #>> '{2,status_since}')::timestamptz,
  (select generated_at from private.signals where seq = 3 and trader_no = (
    select trader_no from private.traders where trader_id = :'trader')),
  'since when: for a generated signal, since it was generated');
select is(
  tests.pluck(tests.statuses(:'bob'), 'status'), array['generated', 'analyzed'],
  'bob sees the status of his own');
select is(
  tests.ask(:'bob', 'select count(*) from private.signal_events'), '1', 'nor any other event');
alter policy members_read_own_events on private.signal_events using (true);
select cmp_ok(
  tests.ask(:'bob', 'select count(*) from private.signal_events')::integer, '>=', 5,
  'relaxed, members_read_own_events leaks');
drop policy members_read_own_events on private.signal_events;
select is(
  tests.ask(:'bob', 'select public.query_events()') -> 'events', '[]',
  'without it no event is shown');

select tests.set_clock(now() + interval '7 days') is null as later \gset
select is(
  (select array_agg(distinct concat_ws(' ', each ->> 'status', each ->> 'archived'))
    from jsonb_array_elements(tests.statuses(:'alice')) as each),
  array['generated true'], 'after 7 days a signal is archived as well');

select * from finish();
rollback;
