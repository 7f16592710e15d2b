begin;
\ir ../helpers.psql
select plan(7);

select tests.set_clock('2026-06-15 12:00:00+00') \g /dev/null
select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select account_no from private.accounts where account_id = :'alice' \gset

-- An hour apart, from 5 days ago: every second one is imported, all are ingested later.
select jsonb_agg(signal order by number) filter (where number % 2 = 0) as even,
  jsonb_agg(signal order by number) as every
from generate_series(0, 99) as number
cross join lateral tests.signal(:'trader', jsonb_build_object(
  'generated_at', tests.iso(private.clock() - interval '5 days' + number * interval '1 hour')
)) as signal \gset

select private.import_signals(:'alice', gen_random_uuid(), :'even')::jsonb ->> 'accepted' as accepted \gset
select is(
  :'accepted'::text, '50',
  'what ingest would still take is imported, too');
select is(
  (select packed_until from private.accounts where account_no = :account_no),
  '2026-06-14 14:00:00+00', 'packed_until is the time of the newest');
select is(
  tests.ingest(:'alice', :'every') - array['request_id', 'items'],
  '{"accepted": 50, "duplicate": 50, "rejected": 0, "first_seq": 51, "last_seq": 100}',
  'ingest finds the duplicates in the segments');
select is(
  private.import_signals(:'alice', gen_random_uuid(), :'every')::jsonb ->> 'duplicate', '100',
  'import finds them in the table and in the segments');
select is(
  private.import_signals(:'alice', gen_random_uuid(), jsonb_build_array(
    :'every'::jsonb -> 3 || '{"symbol": "ETH/USD"}', :'every'::jsonb -> 3 || '{"symbol": "ETH/USD"}'
  ))::jsonb - array['request_id', 'items'],
  '{"accepted": 1, "duplicate": 1, "rejected": 0, "first_seq": 101, "last_seq": 101}',
  'and within a request');
select is(
  (select packed_until from private.accounts where account_no = :account_no),
  '2026-06-14 14:00:00+00', 'packed_until never goes back');
select is(
  tests.pluck(tests.pages(:'alice', 'sort => ''seq'''), 'seq'),
  (select array_agg(seq::text order by seq) from generate_series(1, 101) as seq), 'seq has no gap');

select * from finish();
rollback;
