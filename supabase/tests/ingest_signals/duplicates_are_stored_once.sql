begin;
\ir ../helpers.psql
select plan(9);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice', 'one') as one, tests.trader(:'alice', 'two') as two,
  tests.trader(:'bob', 'one') as foreign_one \gset
select tests.signal(:'one') as signal \gset

select is(
  tests.ingest(:'alice', jsonb_build_array(
    :'signal'::jsonb, :'signal'::jsonb, :'signal'::jsonb || '{"price": 1}')) - 'request_id',
  jsonb_build_object(
    'accepted', 1, 'duplicate', 2, 'rejected', 0, 'first_seq', 1, 'last_seq', 1,
    'items', (select jsonb_agg(jsonb_build_object(
      'index', index, 'code', 'duplicate', 'message', message) order by index)
      from private.item_codes cross join unnest(array[1, 2]) as index where code = 'duplicate')),
  'of equal keys in one batch the first is stored');
select is(
  tests.ingest(:'alice', jsonb_build_array(:'signal'::jsonb)) - array['request_id', 'items'],
  '{"accepted": 0, "duplicate": 1, "rejected": 0, "first_seq": null, "last_seq": null}',
  'in a later batch it is a duplicate, and takes no seq');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    :'signal'::jsonb || '{"confidence": 0.1, "action": "exit_long", "metadata": {"other": 1}}'))),
  array['0 duplicate'], 'other content under the same key is a duplicate');
select is(
  (select array_agg(confidence || ' ' || action) from private.signals
    inner join private.accounts using (account_no) where account_id = :'alice'),
  array['0.75 1'], 'and does not change what is stored');
select is(
  tests.ingest(:'alice', jsonb_build_array(
    :'signal'::jsonb || '{"symbol": "btc/usd"}',
    :'signal'::jsonb || '{"timeframe": "1M"}',
    :'signal'::jsonb || jsonb_build_object('trader_id', :'two'),
    :'signal'::jsonb || jsonb_build_object(
      'generated_at', tests.iso(private.clock() - interval '1 microsecond')))) ->> 'accepted',
  '4', 'another symbol, timeframe, trader or microsecond is another signal');
select is(
  tests.ingest(:'bob', jsonb_build_array(
    :'signal'::jsonb || jsonb_build_object('trader_id', :'foreign_one'))) ->> 'accepted',
  '1', 'another account has its own');
select is(
  tests.refused(tests.ingest(:'alice', tests.signals(:'one', 5) || tests.signals(:'one', 5))),
  array['5 duplicate', '6 duplicate', '7 duplicate', '8 duplicate', '9 duplicate'],
  'a batch sent twice within one request is stored once');
select is(
  tests.refused(tests.ingest(:'alice', tests.signals(:'one', 4, 4))),
  array['0 duplicate', '1 duplicate'], 'where batches overlap only the rest is new');
select throws_ok(
  'insert into private.signals select * from private.signals limit 1', '23505', null,
  'the table itself holds each key once');

select * from finish();
rollback;
