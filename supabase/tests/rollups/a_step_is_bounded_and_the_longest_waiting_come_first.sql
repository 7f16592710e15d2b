begin;
\ir ../helpers.psql
\ir recount.psql
select plan(5);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.roll_up() as others \gset

create temporary view waiting as
select
  case account.account_id
    when current_setting('tests.alice')::uuid then 'alice' else 'bob' end as account,
  range.first_seq, range.last_seq
from private.next_to_roll_up(10) with ordinality as range (account_no, first_seq, last_seq, place)
inner join private.accounts as account on account.account_no = range.account_no
order by range.place;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is_empty('select * from waiting', 'nothing waits when all is rolled up');
select tests.ingest(:'alice', tests.mixed(:'trader', 1, 7)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.mixed(:'foreign_trader', 1, 20)) ->> 'accepted' as more \gset
select results_eq(
  'select * from waiting', $$values ('alice', 1::bigint, 7::bigint), ('bob', 1, 3)$$,
  'at most so many signals, which may be a part of what an account has');
select private.rollup_step() as merged \gset
select tests.ingest(:'alice', tests.mixed(:'trader', 8, 40)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.mixed(:'foreign_trader', 21, 22)) ->> 'accepted' as more \gset
update private.rollup_heads set rolled_up_at = rolled_up_at - interval '1 second'
where account_no = (select account_no from private.accounts where account_id = :'bob');
select results_eq(
  'select * from waiting', $$values ('bob', 21::bigint, 22::bigint), ('alice', 8, 15)$$,
  'whose last step is longest ago comes first');
select is(
  (select sum(last_seq - first_seq + 1) from private.next_to_roll_up(1)), 1::numeric,
  'the smallest step');
select is(private.rollup_step(), 35::bigint, 'a step does all that it has room for');

select * from finish();
rollback;
