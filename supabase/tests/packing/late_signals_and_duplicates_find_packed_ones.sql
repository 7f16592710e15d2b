begin;
\ir ../helpers.psql
\ir packing.psql
select plan(12);

select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select
  tests.signals_at(:'trader', array_agg(:'noon'::timestamptz - n * interval '10 hours')) as sent,
  tests.signals_at(:'trader', array[:'noon'::timestamptz - interval '4 days 3 seconds']) as late
from generate_series(0, 15) as n \gset
select tests.ingest(:'alice', :'sent') ->> 'accepted' as stored \gset
select tests.run('pack_step') > 0 as packed \gset

select is(
  (
    select account.packed_until from private.accounts as account
    where account.account_id = :'alice'),
  date_trunc('day', :'noon'::timestamptz, 'utc') - interval '1 day 1 microsecond',
  'packed_until is the end of the newest packed day');
select is(
  tests.ingest(:'alice', :'sent') ->> 'duplicate', '16', 'packed or not, all are known again');
select is(
  tests.ingest(:'alice', :'sent'::jsonb || :'late'::jsonb) -> 'accepted', '1',
  'a late one between them is stored');
select is(
  tests.ingest(:'alice', :'late'::jsonb) ->> 'duplicate', '1', 'once');

create temporary table plain on commit drop as
select signal.* from private.stored_signals as signal;
select is(
  (select count(*) from plain where account_no = tests.account_no(:'alice')), 17::bigint,
  'seventeen');

select is(tests.run('pack_step'), 0::bigint, 'a day is not packed again before midnight');
select is(tests.differences(:'alice'), 0::bigint, 'beside packed ones a late signal is read once');
select tests.set_clock(:'noon'::timestamptz + interval '13 hours') \g /dev/null
select cmp_ok(tests.run('pack_step'), '>', 0::bigint, 'in the night it is');
select is(
  (
    select count(*) from private.signals as signal
    where signal.account_no = tests.account_no(:'alice')
      and signal.generated_at < :'noon'::timestamptz - interval '2 days'),
  0::bigint, 'the late signal is packed, too');
select is(tests.differences(:'alice'), 0::bigint, 'and read once');
select is(tests.ingest(:'alice', :'late'::jsonb) ->> 'duplicate', '1', 'it is still known');

select tests.set_clock(:'noon'::timestamptz + interval '50 days') \g /dev/null
select tests.run('pack_step'), tests.run('merge_step') \g /dev/null
select is(tests.differences(:'alice'), 0::bigint, 'merged with the others it is read once');

select * from finish();
rollback;
