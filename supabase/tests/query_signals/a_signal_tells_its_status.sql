begin;
\ir ../helpers.psql
select plan(14);

select tests.pause_jobs() \g /dev/null
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

-- The same word finds it, whichever the order.
create function tests.seqs_with(statuses text)
returns text[]
language sql
as $$
  select array_agg(distinct array_to_string(
    tests.pluck(tests.pages(current_setting('tests.alice')::uuid, format(
      'statuses => %L, sort => %L, page_size => 1', seqs_with.statuses, sort)), 'seq'), ' ')
    collate "C")
  from unnest(private.sorts()) as sort
$$;
select is(tests.seqs_with('{expired}'), array['2'], 'expired finds it');

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

select is(tests.seqs_with('{closed}'), array['1'], 'closed finds it');
select is(tests.seqs_with('{executed}'), array[''], 'executed no more');
select is(tests.seqs_with('{expired}'), array['2'], 'expired finds what no event tells of');
select is(tests.seqs_with('{generated}'), array['3'], 'and generated what is still open');
select is(tests.seqs_with('{closed,generated}'), array['1 3', '3 1'], 'or several at once');

-- Also when the signals are packed.
update private.accounts set packed_until = now() where account_id = :'alice';
with taken as (
  delete from private.signals as signal
  where signal.account_no = tests.account_no(:'alice')
  returning signal
)
select private.store_segments(array_agg(taken.signal)) from taken \g /dev/null
select is(tests.seqs_with('{closed}'), array['1'], 'packed, closed finds it still');
select is(tests.seqs_with('{expired,generated}'), array['2 3', '3 2'], 'and the others');

select * from finish();
rollback;
