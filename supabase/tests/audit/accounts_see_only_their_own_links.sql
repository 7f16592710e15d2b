begin;
\ir ../helpers.psql
select plan(3);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.signals(:'foreign_trader', 2)) ->> 'accepted' as foreign_stored \gset

select is(
  tests.ask(:'alice', 'select count(*) from audit.links'), '1', 'alice sees the link of her batch');
select is(
  tests.ask(:'alice', format(
    'select count(*) from audit.links where account_no = %s', tests.account_no(:'bob'))),
  '0', 'and not that of bob');
select is(
  tests.ask(:'alice', 'select count(*) from audit.links', 'signals:write'), '0',
  'without the scope to read she sees none');

select * from finish();
rollback;
