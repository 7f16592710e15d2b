begin;
\ir ../helpers.psql
\ir packing.psql
select plan(8);

select date_trunc('day', now(), 'utc') + interval '12 hours' as noon \gset
select tests.set_clock(:'noon') \g /dev/null
update private.tiers set hot_signals = 50, warm_signals = 10 where tier = 'pro';
select tests.account('pro') as alice, tests.account('elite') as bob \gset
select tests.trader(:'alice') as a_trader, tests.trader(:'bob') as b_trader \gset
select tests.ingest(:'alice', tests.signals(:'a_trader', 50)) ->> 'accepted' as stored \gset
select tests.ingest(:'bob', tests.signals(:'b_trader', 80)) ->> 'accepted' as stored \gset
create temporary view held as
select account.account_id, (
  select count(*) from private.signals as signal
  where signal.account_no = account.account_no) as hot, (
  select coalesce(sum(segment.signals), 0) from private.segments as segment
  where segment.account_no = account.account_no and not segment.merged) as warm
from private.accounts as account;

select tests.run('pack_step') \g /dev/null
select is(
  (select hot from held where account_id = :'alice'), 50::bigint, 'as many as allowed stay');

select tests.signals(:'a_trader', 1, 51) as one_more \gset
select tests.ingest(:'alice', :'one_more') ->> 'accepted' as stored \gset
select tests.set_clock(:'noon'::timestamptz + interval '1 hour') \g /dev/null
create temporary table plain on commit drop as
select signal.* from private.stored_signals as signal;
select tests.run('pack_step') \g /dev/null
select is(
  (select hot from held where account_id = :'alice'), 45::bigint,
  'one more, and the oldest are packed down to nine tenths');
select is(
  (
    select min(signal.generated_at) from private.signals as signal
    where signal.account_no = tests.account_no(:'alice')),
  :'noon'::timestamptz - interval '45 milliseconds', 'it is the oldest that are');
select is((select hot from held where account_id = :'bob'), 80::bigint, 'without a limit all stay');
select is(tests.differences(:'alice'), 0::bigint, 'each is read once');
select is(
  tests.refused(tests.ingest(:'alice', :'one_more')),
  array['0 duplicate'], 'and known again');

-- In warm storage, in segments of five.
delete from private.signals where account_no = tests.account_no(:'alice');
delete from private.segments where account_no = tests.account_no(:'alice');
select private.store_segments(array(
  select row(plain.*)::private.signals from plain
  where plain.account_no = tests.account_no(:'alice') and (plain.seq - 1) / 5 = n))
from generate_series(0, 10) as n \g /dev/null
select tests.run('merge_step') \g /dev/null
select is(
  (select warm from held where account_id = :'alice'), 10::bigint,
  'beyond the warm limit the oldest are merged before their time');
select is(tests.differences(:'alice'), 0::bigint, 'and each is read once');

select * from finish();
rollback;
