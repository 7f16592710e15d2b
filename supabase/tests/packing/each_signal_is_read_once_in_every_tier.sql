begin;
\ir ../helpers.psql
\ir packing.psql
select plan(22);

select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
select tests.account() as alice, tests.account('pro') as bob \gset
select tests.trader(:'alice') as a_trader, tests.trader(:'bob') as b_trader \gset
select array_agg(:'noon'::timestamptz - n * interval '5 hours 1 second') as times
from generate_series(0, 30) as n \gset
select tests.ingest(:'alice', tests.signals_at(:'a_trader', :'times')) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.signals_at(:'b_trader', :'times')) ->> 'accepted' \g /dev/null

create temporary table plain on commit drop as select signal.* from private.signals as signal;

-- The pages joined, but for the status: a signal expires as time goes on.
create function tests.shown(
  account_id uuid,
  filter text
)
returns text[]
language sql
as $$
  select array_agg((signal - 'status')::text order by place)
  from jsonb_array_elements(tests.pages(shown.account_id, shown.filter || 'page_size => 7'))
    with ordinality as each (signal, place)
$$;
create temporary table shown on commit drop as
select tests.shown(:'alice', '') as newest, tests.shown(:'alice', 'after_seq => 0, ') as by_seq;

create function tests.in_table(account_id uuid)
returns bigint
language sql
as $$
  select count(*) from private.signals as signal
  where signal.account_no = tests.account_no(in_table.account_id)
$$;

-- What every client and every job reads, at one moment of the life of the signals.
create function tests.all_is_there(
  alice uuid,
  bob uuid,
  moment text
)
returns setof text
language plpgsql
as $$
begin
  return next is(
    tests.differences(alice), 0::bigint, moment || ': alice''s signals are each read once');
  return next is(tests.differences(bob), 0::bigint, moment || ': and bob''s');
  return next is(
    tests.shown(alice, ''), (select shown.newest from shown),
    moment || ': the pages are the same, newest first');
  return next is(
    tests.shown(alice, 'after_seq => 0, '), (select shown.by_seq from shown),
    moment || ': and by seq');
end
$$;

select tests.all_is_there(:'alice', :'bob', 'hot');
select is(tests.run('pack_step') > 0, true, 'what is over for a day is packed');
select set_eq(
  format('select distinct date_trunc(''day'', generated_at, ''utc'') from private.signals '
    'where account_no = tests.account_no(%L)', :'alice'),
  format('values (date_trunc(''day'', %1$L::timestamptz, ''utc'')), '
    '(date_trunc(''day'', %1$L::timestamptz, ''utc'') - interval ''1 day'')', :'noon'),
  'today and yesterday stay in the table');
select tests.all_is_there(:'alice', :'bob', 'partly packed');

select tests.set_clock(:'noon'::timestamptz + interval '2 days') \g /dev/null
select is(tests.run('pack_step') > 0, true, 'two days later the rest is');
select is(tests.in_table(:'alice') + tests.in_table(:'bob'), 0::bigint, 'and none is in the table');
select tests.all_is_there(:'alice', :'bob', 'packed');

select tests.set_clock(:'noon'::timestamptz + interval '50 days') \g /dev/null
select is(tests.run('merge_step') > 0, true, 'later they are merged');
select is(
  (
    select max(segments) from (
      select count(*) as segments from private.segments as segment
      where segment.account_no in (tests.account_no(:'alice'), tests.account_no(:'bob'))
      group by segment.account_no, date_trunc('month', segment.first_generated_at, 'utc')
      having bool_and(segment.merged)
    ) as month),
  1::bigint, 'into one segment a month');
select tests.all_is_there(:'alice', :'bob', 'merged');

select * from finish();
rollback;
