begin;
\ir ../helpers.psql
\ir recount.psql
select plan(15);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader, tests.trader(:'alice', 'other') as other \gset
select tests.set_clock(date_trunc('day', now(), 'UTC') + interval '1:30') \g /dev/null
select tests.ingest(:'alice', tests.mixed(:'trader', 1, 30)) ->> 'accepted' as stored,
  tests.ingest(:'alice', tests.mixed(:'other', 1, 30)) ->> 'accepted' as more \gset
select tests.roll_up() as merged \gset
-- Of these, every other one adds to a rollup that is stored.
select tests.ingest(:'alice', tests.mixed(:'other', 31, 50)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', (
  select jsonb_agg(signal || jsonb_build_object('generated_at', tests.iso(
    date_trunc('minute', (signal ->> 'generated_at')::timestamptz, 'UTC'))))
  from jsonb_array_elements(tests.mixed(:'trader', 1, 50)) as signal)) ->> 'accepted'
  as stored \gset

select tests.recount(:'alice', '1m') as minutes \gset
select is(
  tests.first_difference(
    tests.rollups(:'alice', format('page_size => %s,', size)), :'minutes'::jsonb),
  null, 'newest first, pages of ' || size)
from unnest(array[1, 2, 3, 50, 1000]) as size;
select is(
  tests.first_difference(
    tests.rollups(:'alice', 'resolution => ''1d'', page_size => 1,'),
    tests.recount(:'alice', '1d')),
  null, 'days, one a page');

select jsonb_array_length(:'minutes'::jsonb) as rollups \gset
select is(
  tests.ask(:'alice', format('select public.query_rollups(page_size => %s)', :rollups))
    ->> 'next_cursor', null, 'a full last page has no next one');
select isnt(
  tests.ask(:'alice', format('select public.query_rollups(page_size => %s)', :rollups - 1))
    ->> 'next_cursor', null, 'one more has');

select is(
  tests.first_difference(
    tests.rollups(:'alice', 'page_size => 2,' || question),
    (select coalesce(jsonb_agg(rollup order by place), '[]')
      from jsonb_array_elements(:'minutes'::jsonb) with ordinality as each (rollup, place)
      where rollup @@ format(answer, :'trader')::jsonpath)),
  null, question)
from (values
  (format('traders => array[%L]::uuid[],', :'trader'), '$.trader_id == "%1$s"'),
  ('symbols => array[''S1'', ''S3''],', '$.symbol == "S1" || $.symbol == "S3"'),
  ('timeframes => array[''1h''],', '$.timeframe == "1h"'),
  ('traders => ''{}'',', 'false == true')
) as filter (question, answer);
select is(
  tests.first_difference(
    tests.rollups(:'alice', format('"from" => %L, "to" => %L, page_size => 3,',
      private.clock() - interval '40 minutes', private.clock() - interval '20 minutes')),
    (select jsonb_agg(rollup order by place)
      from jsonb_array_elements(:'minutes'::jsonb) with ordinality as each (rollup, place)
      where (rollup ->> 'bucket')::timestamptz >= private.clock() - interval '40 minutes'
        and (rollup ->> 'bucket')::timestamptz < private.clock() - interval '20 minutes')),
  null, 'buckets that begin at or after from and before to');

-- What the job merges between two pages does not shift them.
select tests.recount(:'alice', '1h') as hours \gset
select tests.ask(:'alice', 'select public.query_rollups(resolution => ''1h'', page_size => 5)')
  as first \gset
select tests.roll_up() as merged \gset
select cmp_ok(:merged, '>', 0, 'the job had something to merge');
select is(
  tests.first_difference(
    (:'first'::jsonb -> 'rollups') || (tests.ask(:'alice', format(
      'select public.query_rollups(resolution => ''1h'', page_size => 1000, cursor => %L)',
      :'first'::jsonb ->> 'next_cursor')) -> 'rollups'),
    :'hours'::jsonb),
  null, 'the job between two pages shifts nothing');

select * from finish();
rollback;
