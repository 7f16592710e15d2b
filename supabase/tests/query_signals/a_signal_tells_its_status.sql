begin;
\ir ../helpers.psql
select plan(6);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
-- The second is over already when it is stored.
select jsonb_agg(signal || case number
    when 2 then jsonb_build_object('valid_until', tests.iso(
      (signal ->> 'generated_at')::timestamptz + interval '1 microsecond'))
    else '{}' end order by number) as signals
from jsonb_array_elements(tests.signals(:'trader', 3)) with ordinality as each (signal, number) \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored \gset

create function tests.told(field text)
returns text[]
language sql
as $$
  select tests.pluck(tests.ask(
    current_setting('tests.alice')::uuid, 'select public.query_signals(after_seq => 0) -> ''signals'''
  ), told.field)
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is(
  tests.told('status'), array['generated', 'expired', 'generated'],
  'without an event, valid_until alone decides');
select is(tests.told('outcome'), array[null, null, null]::text[], 'and nothing came of it yet');
select is(
  (select tests.pluck(payload -> 'signals', 'status') from realtime.messages
    where topic = 'account:' || :'alice' || ':signals' and payload ? 'signals'),
  tests.told('status'), 'the broadcast says the same');

select tests.advance(:'alice', jsonb_build_array(
  tests.change(:'signals'::jsonb -> 0, 'executed', '{"entry_price": 64000}'),
  tests.change(:'signals'::jsonb -> 0, 'closed'))) ->> 'accepted' as accepted \gset
select is(
  tests.told('status'), array['closed', 'expired', 'generated'], 'the last event is the status');
select is(
  (tests.told('outcome'))[1]::jsonb,
  '{"entry_price": 64000, "exit_price": 65000.5, "close_reason": "take_profit"}'::jsonb,
  'with what came of it, and no field that nobody told');
select is(
  (tests.told('outcome'))[2:], array[null, null]::text[], 'which others do not have');

select * from finish();
rollback;
