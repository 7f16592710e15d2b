begin;
\ir ../helpers.psql
select plan(5);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader, gen_random_uuid() as first, gen_random_uuid() as second,
  gen_random_uuid() as third \gset

select set_config('request.headers', '{"x-correlation-id": "order-7"}', true) as headers \gset
select tests.ingest(:'alice', tests.signals(:'trader', 3), :'first') ->> 'accepted' as stored \gset
select set_config('request.headers',
  format('{"x-correlation-id": "%s"}', repeat('c', 100)), true) as headers \gset
select tests.ingest(:'alice', tests.signals(:'trader', 3), :'second') ->> 'accepted' as stored \gset
select set_config('request.headers', '', true) as headers \gset
select tests.ingest(:'alice', tests.signals(:'trader', 1, 9), :'third')
  ->> 'accepted' as stored \gset

select is(
  (select row(first_seq, last_seq, first_generated_at, last_generated_at, received_at)
    from private.batches where request_id = :'first'),
  row(1::bigint, 3::bigint, now() - interval '3 milliseconds', now() - interval '1 millisecond',
    now()),
  'a batch has its range of seq and of generated_at, and its time');
select is(
  (select row(first_seq, last_seq, first_generated_at, last_generated_at)
    from private.batches where request_id = :'second'),
  row(null::bigint, null::bigint, null::timestamptz, null::timestamptz),
  'a batch that stored nothing has none');
select is(
  (select correlation_id from private.batches where request_id = :'first'), 'order-7',
  'the correlation id of the request is kept');
select is(
  (select correlation_id from private.batches where request_id = :'second'), repeat('c', 64),
  'cut to 64 characters');
select is(
  (select correlation_id from private.batches where request_id = :'third'), null,
  'without the header there is none');

select * from finish();
rollback;
