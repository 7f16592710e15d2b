begin;
\ir ../helpers.psql
select plan(21);

select tests.account() as alice, tests.account('free') as bob \gset
select tests.trader(:'alice', 'quiet') as quiet, tests.trader(:'alice', 'loud', true) as loud,
  tests.trader(:'alice', 'louder', true) as louder, tests.trader(:'bob', 'loud', true) as bobs \gset
select 'account:' || :'alice' || ':signals' as topic \gset

create function tests.told(topic text)
returns setof jsonb
language sql
as $$
  select payload - 'id' from realtime.messages where messages.topic = told.topic
  order by (payload ->> 'first_seq')::bigint
$$;

select tests.ingest(:'alice', tests.signals(:'quiet', 2) || '[null]') ->> 'accepted' as stored \gset
select is(
  (select row(event, extension, private) from realtime.messages where topic = :'topic'),
  row('signals_ingested'::text, 'broadcast'::text, true),
  'a stored batch is one private broadcast');
select is(
  (select payload - 'broadcast_at' - 'signals' from tests.told(:'topic') as payload),
  '{"first_seq": 1, "last_seq": 2, "count": 2}', 'that tells the seq range');
select is(
  (select payload -> 'signals' from tests.told(:'topic') as payload),
  tests.ask(:'alice', 'select public.query_signals(sort => ''seq'') -> ''signals'''),
  'and carries the signals as query_signals gives them, by seq');
select cmp_ok(
  (select (payload ->> 'broadcast_at')::timestamptz from tests.told(:'topic') as payload),
  '>=', now(), 'with the time at which it was sent');
select is(
  (select count(*)::integer from realtime.messages
    where topic like 'trader:%' and payload ? 'first_seq' and topic like any(array[
      '%' || :'quiet' || '%', '%' || :'loud' || '%', '%' || :'louder' || '%'])), 0,
  'a trader without a channel has none');

select tests.ingest(:'alice', tests.signals(:'quiet', 2)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', '[]') ->> 'accepted' as stored \gset
select tests.ingest(:'alice', '[{}, 1]') ->> 'accepted' as stored \gset
select is(
  (select count(*)::integer from tests.told(:'topic')), 1,
  'a batch that stored nothing is not told');
select gen_random_uuid() as request \gset
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 10), :'request')
  ->> 'accepted' as stored \gset
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 10), :'request')
  ->> 'accepted' as stored \gset
select is((select count(*)::integer from tests.told(:'topic')), 2, 'nor is a replay');

-- Traders with a channel of their own.
select tests.ingest(:'alice', tests.signals(:'loud', 2, 20) || tests.signals(:'quiet', 1, 30))
  ->> 'accepted' as stored \gset
select is(
  (select array_agg(payload - 'broadcast_at') from tests.told('trader:' || :'loud' || ':signals')
    as payload),
  array['{"first_seq": 4, "last_seq": 6, "count": 3}'::jsonb],
  'a trader''s own channel is told the range, not the signals of others');
select is(
  (select count(*)::integer from tests.told('trader:' || :'louder' || ':signals')), 0,
  'a trader that is not in the batch is not told');
select is(
  (select count(*)::integer from tests.told(:'topic')), 3, 'the account is told as always');
select tests.ingest(:'alice', tests.signals(:'loud', 1, 40) || tests.signals(:'louder', 1, 40))
  ->> 'accepted' as stored \gset
select is(
  (select array_agg((select count(*) from tests.told('trader:' || trader || ':signals')))
    from unnest(array[:'loud', :'louder']) as trader), array[2, 1]::bigint[],
  'each trader of a batch is told once');
select tests.ingest(:'alice', tests.signals(:'loud', 2, 20)) ->> 'accepted' as stored \gset
select is(
  (select count(*)::integer from tests.told('trader:' || :'loud' || ':signals')), 2,
  'duplicates are not told to a trader''s channel either');

-- How much a broadcast carries.
select tests.ingest(:'alice', tests.signals(:'quiet', 20, 1000)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', tests.signals(:'quiet', 21, 2000)) ->> 'accepted' as stored \gset
select results_eq(
  format($$
    select (payload ->> 'count')::integer, jsonb_array_length(payload -> 'signals')
    from tests.told(%L) as payload where (payload ->> 'count')::integer >= 20
  $$, :'topic'),
  'values (20, 20), (21, null)', 'up to 20 signals are carried, more are not');

create function tests.ingest_large(trader_id uuid, count integer, first integer)
returns jsonb
language sql
as $$
  select tests.ingest(current_setting('tests.alice')::uuid, (
    select jsonb_agg(signal || jsonb_build_object(
      'metadata', jsonb_build_object('k', repeat('x', 2000))))
    from jsonb_array_elements(tests.signals(
      ingest_large.trader_id, ingest_large.count, ingest_large.first)) as signal))
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null
select tests.ingest_large(:'quiet', 19, 5000) ->> 'accepted' as stored \gset
select results_eq(
  format($$
    select payload ? 'signals'
    from tests.told(%L) as payload where (payload ->> 'count')::integer = 19
  $$, :'topic'),
  'values (true)', 'large signals are carried too');
select is(
  (select max(octet_length(payload::text)) <= 65536
    from tests.told(:'topic') as payload), true, 'what is carried fits');
select is(
  (select sum((payload ->> 'count')::bigint) from tests.told(:'topic') as payload),
  (select last_seq::numeric from private.accounts where account_id = :'alice'),
  'all ranges together are all that was stored');

-- Bob's topic is his.
select tests.ingest(:'bob', tests.signals(:'bobs', 101)) ->> 'accepted' as stored \gset
select is(
  (select (payload ->> 'count')::integer
    from tests.told('account:' || :'bob' || ':signals') as payload), 100,
  'what the quota refused is not told');
select is(
  (select count(*)::integer from tests.told('trader:' || :'bobs' || ':signals')), 1,
  'bob''s trader has its channel');
select is_empty(
  format($$
    select from realtime.messages
    where topic like %L and payload::text like any(array[%L, %L])
  $$, '%' || :'alice' || '%', '%' || :'bob' || '%', '%' || :'bobs' || '%'),
  'nothing of bob is in a topic of alice');
select is_empty(
  format($$select from tests.told(%L) as payload where payload::text like '%%account_id%%'$$,
    :'topic'),
  'no signal carries the account''s id');
select is_empty(
  'select from realtime.messages where payload ? ''first_seq'' and not private',
  'nothing is sent in public');

select * from finish();
rollback;
