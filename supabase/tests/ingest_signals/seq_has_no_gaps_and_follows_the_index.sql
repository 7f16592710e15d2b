begin;
\ir ../helpers.psql
select plan(7);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset

-- Ten signals, of which every third is bad and one is a duplicate; the newest comes first.
select tests.ingest(:'alice', jsonb_agg(
  tests.signal(:'trader', jsonb_build_object(
    'price', number, 'confidence', case when number % 3 = 0 then 2 else 0.5 end,
    'generated_at', tests.iso(now() - (number - number / 8) * interval '1 second')))
  order by number)) as first
from generate_series(1, 10) as number \gset

select is(
  tests.refused(:'first'), array['2 invalid_confidence', '5 invalid_confidence', '7 duplicate',
    '8 invalid_confidence'], 'four of ten are refused');
select is(
  :'first'::jsonb - array['request_id', 'items'],
  '{"accepted": 6, "duplicate": 1, "rejected": 3, "first_seq": 1, "last_seq": 6}',
  'six are numbered from 1');
select is(
  (select array_agg(price order by seq) from private.signals
    inner join private.accounts using (account_no) where account_id = :'alice'),
  array[1, 2, 4, 5, 7, 10]::double precision[], 'in the order in which they were sent');

select is(
  tests.ingest(:'alice', '[1, 2]') - array['request_id', 'items'],
  '{"accepted": 0, "duplicate": 0, "rejected": 2, "first_seq": null, "last_seq": null}',
  'a batch of which nothing is stored uses no seq');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 3)) - array['request_id', 'items'],
  '{"accepted": 3, "duplicate": 0, "rejected": 0, "first_seq": 7, "last_seq": 9}',
  'the next batch goes on where the last one ended');
select throws_ok(
  format('select private.raise_error(400, ''x'', ''x'', ''x'') from tests.ingest(%L, %L)', :'alice',
    tests.signals(:'trader', 3, 4)), 'PT400', 'x', 'a transaction that stores and then fails');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 3, 4)) ->> 'first_seq', '10',
  'leaves no gap');

select * from finish();
rollback;
