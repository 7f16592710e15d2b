begin;
\ir ../helpers.psql
\ir ../packing/packing.psql
\ir counts.psql
select plan(25);

-- 61 signals over seven days, of two traders and five symbols, and those of another account.
select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
select tests.account() as alice, tests.account('pro') as bob \gset
select tests.trader(:'alice') as one, tests.trader(:'alice', 'two') as two,
  tests.trader(:'bob') as b_trader \gset
select array_agg(:'noon'::timestamptz - n * interval '5 hours 17 minutes') as some,
  array_agg(:'noon'::timestamptz - n * interval '5 hours 30 minutes') as others
from generate_series(0, 30) as n \gset
select tests.ingest(:'alice', tests.signals_at(:'one', :'some')) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.signals_at(:'b_trader', :'some')) ->> 'accepted' as other_stored \gset

create temporary table filters (argument text, condition text) on commit drop;
insert into filters
select format(argument, :'one'), format(condition, :'one')
from (values
  ('', 'true'),
  ('traders => array[%L]::uuid[]', 'trader_id = %L'),
  ('symbols => array[''ES'', ''A'']', 'symbol in (''ES'', ''A'')'),
  ('symbol_prefix => ''E''', 'symbol like ''E%%'''),
  ('timeframes => array[''1h''], actions => array[''exit_long'', ''enter_short'']',
    'timeframe = ''1h'' and action in (''exit_long'', ''enter_short'')'),
  ('symbols => ''{}''', 'false'),
  ('min_confidence => 0.51, max_confidence => 0.52', 'confidence between 0.51 and 0.52'),
  ('max_price => 64002.5', 'price <= 64002.5'),
  ('after_seq => 20, until_seq => 50', 'seq between 21 and 50'),
  ('statuses => array[''closed'']', 'false')
) as filter (argument, condition);

-- Ends that are whole days, whole hours and neither.
create temporary table spans (starts timestamptz, ends timestamptz) on commit drop;
insert into spans
select
  midnight - case when starts = 'never' then null else starts::interval end,
  midnight - case when ends = 'never' then null else ends::interval end
from date_trunc('day', :'noon'::timestamptz, 'utc') as midnight
cross join (values
  ('never', 'never'), ('4 days', 'never'), ('never', '2 days'), ('5 days', '2 days'),
  ('5 days 3:10:01', '1 day 2:59:59.999999'), ('3 days 8:00', '3 days 1:30'),
  ('2 days 3:20', '2 days 3:01'), ('1:30', '-11:30'), ('1 day', '2 days')
) as span (starts, ends);

-- What differs from a recount, of each filter and each span.
create function tests.wrong_counts(account_id uuid)
returns table (argument text, starts timestamptz, ends timestamptz, answer jsonb, expected bigint)
language sql
as $$
  select * from (
    select
      filter.argument, span.starts, span.ends,
      tests.ask(wrong_counts.account_id, format(
        'select public.count_signals(%s "from" => %L, "to" => %L, exact => true)',
        nullif(filter.argument, '') || ', ', span.starts, span.ends)) as answer,
      tests.recount(format(
        '%s and generated_at >= %L and generated_at < %L', filter.condition,
        coalesce(span.starts, '-infinity'), coalesce(span.ends, 'infinity'))) as expected
    from filters as filter
    cross join spans as span
  ) as each
  where each.answer is distinct from
    jsonb_build_object('count', each.expected, 'exact', true)
$$;

-- The facets of the same question, which is one of all traders, or of one and some days.
create function tests.wrong_facets(
  account_id uuid,
  trader_id uuid,
  since timestamptz
)
returns table (facet text, answer jsonb, expected jsonb)
language sql
as $$
  select * from (
    select
      facet.name,
      tests.ask(wrong_facets.account_id,
        format('select public.signal_facets(%s)', question.argument)) -> facet.name as answer,
      tests.facet_recount(facet.of, question.condition) as expected
    from (values
      ('', 'true'),
      (format('traders => array[%L]::uuid[], "from" => %L', trader_id, since),
        format('trader_id = %L and generated_at >= %L', trader_id, since)),
      ('min_confidence => 0.51', 'confidence >= 0.51')
    ) as question (argument, condition)
    cross join (values
      ('symbols', 'symbol'), ('traders', 'trader_id'), ('actions', 'action'),
      ('timeframes', 'timeframe')
    ) as facet (name, of)
  ) as each
  where each.answer is distinct from each.expected
$$;

create function tests.all_is_counted(
  account_id uuid,
  trader_id uuid,
  moment text
)
returns setof text
language plpgsql
as $$
begin
  drop table if exists plain;
  create temporary table plain on commit drop as
  select * from tests.plain_signals(all_is_counted.account_id);
  return next is_empty(
    format('select * from tests.wrong_counts(%L)', all_is_counted.account_id),
    moment || ': every count is exact');
  return next is_empty(
    format('select * from tests.wrong_facets(%L, %L, %L)', all_is_counted.account_id,
      all_is_counted.trader_id, private.clock() - interval '75 hours 20 minutes'),
    moment || ': and so are the facets');
end
$$;

select is(
  tests.ask(gen_random_uuid(), 'select public.count_signals(exact => true)'),
  '{"count": 0, "exact": true}', 'who has stored nothing has no signal');
select is(
  tests.ask(gen_random_uuid(), 'select public.signal_facets()'),
  '{"symbols": [], "traders": [], "actions": [], "timeframes": [], "exact": true}',
  'and no facet');

select tests.all_is_counted(:'alice', :'one', 'hot');
select is(tests.run('rollup_step') > 0, true, 'the job sums up what is there');
select tests.all_is_counted(:'alice', :'one', 'summed up');
select tests.ingest(:'alice', tests.signals_at(:'two', :'others')) ->> 'accepted' as stored \gset
select tests.all_is_counted(:'alice', :'one', 'half of it summed up');
create or replace function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as 'select 3';
select tests.all_is_counted(:'alice', :'one', 'half of it summed up, three by three');
create or replace function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as 'select 2500';
select is(tests.run('rollup_step') > 0, true, 'the job sums up the rest');
select tests.all_is_counted(:'alice', :'one', 'all summed up');

select tests.set_clock(:'noon'::timestamptz + interval '2 days') \g /dev/null
select is(tests.run('pack_step') > 0, true, 'two days later all is packed');
select tests.all_is_counted(:'alice', :'one', 'packed');
create or replace function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as 'select 3';
select tests.all_is_counted(:'alice', :'one', 'packed, three by three');
select tests.set_clock(:'noon'::timestamptz + interval '33 days') \g /dev/null
select is(tests.run('merge_step') > 0, true, 'later it is merged');
delete from private.rollups where resolution = '1h' and bucket < private.kept_since('1h');
select tests.all_is_counted(:'alice', :'one', 'past the hours of some days');
select tests.set_clock(:'noon'::timestamptz + interval '364 days') \g /dev/null
delete from private.rollups where resolution = '1d' and bucket < private.kept_since('1d');
select tests.all_is_counted(:'alice', :'one', 'past the days');

select is(
  tests.ask(:'bob', 'select public.count_signals(exact => true)') -> 'count', '31',
  'nobody counts the signals of others');

select * from finish();
rollback;
