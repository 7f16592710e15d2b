begin;
\ir ../helpers.psql
select plan(11);

select tests.pause_jobs() \g /dev/null
-- What other tests have left.
delete from private.pending_broadcasts;
update private.live_state set broadcast_interval = '0';

-- So many accounts are told of something in the last seconds, each so often. Messages of other tests
-- may be there as well, so what depends on them is compared with some room.
create function tests.tell(accounts integer, times integer default 1)
returns void
language sql
as $$
  insert into realtime.messages (topic, event, payload, private, extension, inserted_at)
  select
    'account:' || account || ':signals', 'signals_ingested', '{}', true, 'broadcast',
    timezone('utc', clock_timestamp()) - interval '1 second'
  from generate_series(1, tell.accounts) as account
  cross join generate_series(1, tell.times)
$$;
create function tests.seconds(present interval default '0')
returns numeric
language sql
as $$ select extract(epoch from private.automatic_interval(seconds.present)) $$;

savepoint nobody;
select tests.tell(5, 100) \g /dev/null
select is(tests.seconds(), 0::numeric, 'a handful of busy accounts wait for nothing');
rollback to savepoint nobody;

select tests.tell(10000) \g /dev/null
select ok(
  tests.seconds() between 10 and 10.1,
  'with 10,000 accounts on 2,500 messages a second it is 10 s, which takes four fifths of them');
update private.live_settings set subscribers_per_account = 3;
select ok(tests.seconds() between 20 and 20.2, 'with three subscribers each it is 20 s');
update private.live_settings set subscribers_per_account = 1, messages_per_second = 500;
select ok(tests.seconds() between 50 and 50.5, 'and with a fifth of the quota five times as long');
rollback to savepoint nobody;

-- 4,000 messages in 10 s, each received once, are 800 a second; the quota is 2,500.
select tests.tell(400, 10) \g /dev/null
select is(tests.seconds(), 0::numeric, 'up to half of the quota nothing waits');
select ok(
  tests.seconds('100 milliseconds') between 0.3 and 0.5,
  'once accounts wait, they do so down to a quarter of it, so that it does not swing');
rollback to savepoint nobody;
select tests.tell(400) \g /dev/null
select is(tests.seconds('100 milliseconds'), 0::numeric, 'and then no more');
rollback to savepoint nobody;

-- An interval of 20 s: who was told 19 s ago still counts.
select tests.tell(20000) \g /dev/null
update realtime.messages set inserted_at = inserted_at - interval '18 seconds'
where topic like 'account:%:signals';
select ok(tests.seconds('20 seconds') between 20 and 20.5, 'accounts that wait are not forgotten');
rollback to savepoint nobody;

-- Who decides.
update private.live_state set decided_at = '-infinity';
update private.live_settings set broadcast_min_interval = '250 milliseconds';
select is(private.decide_interval(), interval '250 milliseconds', 'an operator may fix it');
update private.live_settings set broadcast_min_interval = null;
select is(private.decide_interval(), interval '250 milliseconds', 'it holds for 5 seconds');
update private.live_state set decided_at = decided_at - interval '5 seconds';
select is(private.decide_interval(), interval '0', 'and is then decided anew');

select * from finish();
rollback;
