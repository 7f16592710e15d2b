begin;
\ir ../helpers.psql
select plan(7);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader \gset

create function tests.head(account_id uuid)
returns jsonb
language sql
as $$ select tests.ask(head.account_id, 'select public.account_head()') - 'database_time' $$;

select is(
  tests.head(gen_random_uuid()),
  '{"last_seq": 0, "last_event_seq": 0, "broadcast_interval_ms": 0, "check_interval_ms": 3500}',
  'an account that has never been used begins at 0');
select tests.signals(:'trader', 3) as signals \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored \gset
select tests.advance(:'alice', jsonb_build_array(tests.change(:'signals'::jsonb -> 0, 'analyzed')))
  ->> 'accepted' as advanced \gset
select is(
  tests.head(:'alice'),
  '{"last_seq": 3, "last_event_seq": 1, "broadcast_interval_ms": 0, "check_interval_ms": 3500}',
  'it tells the last signal and the last event');
select is(tests.head(:'bob') -> 'last_seq', '0', 'of the caller''s account only');
update private.live_state set broadcast_interval = '1500 milliseconds';
select is(
  tests.head(:'alice') -> 'broadcast_interval_ms', '2500',
  'and how long a broadcast may be held back: its interval, and a second until the job has looked');
update private.live_settings set check_interval = '10 seconds';
select is(
  tests.head(:'alice') -> 'check_interval_ms', '10000', 'how often it wants to be asked');
select ok(
  (tests.ask(:'alice', 'select public.account_head()') ->> 'database_time')::timestamptz
  between now() and clock_timestamp(),
  'what time it is in the database');
select is(
  tests.refusal(null, 'select public.account_head()'), 'PT401 unauthorized', 'nobody has no account');

select * from finish();
rollback;
