begin;
\ir ../helpers.psql
select plan(6);
-- The warnings are expected here.
set local client_min_messages = error;

select tests.account() as alice \gset
select tests.trader(:'alice', 'loud', true) as trader \gset

create function tests.messages(account_id uuid)
returns bigint
language sql
as $$
  select count(*) from realtime.messages
  where topic = 'account:' || messages.account_id || ':signals'
$$;

savepoint whole;
create or replace function private.broadcast_payload(batch private.batches)
returns jsonb
language plpgsql
as 'begin raise exception ''planted''; end';
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted', '2',
  'with a payload that cannot be made the batch is stored');
select is(tests.messages(:'alice'), 0::bigint, 'and nothing is told');
rollback to savepoint whole;

-- realtime.send refuses a payload that is no JSON object.
savepoint whole;
create or replace function private.broadcast_payload(batch private.batches)
returns jsonb
language sql
as $$ select '[1]'::jsonb $$;
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted', '2',
  'with a payload that realtime.send refuses the batch is stored');
rollback to savepoint whole;

-- Nor does a row that the messages table refuses.
savepoint whole;
create or replace function private.broadcast_payload(batch private.batches)
returns jsonb
language sql
as $$ select null::jsonb $$;
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted', '2',
  'with no payload at all the batch is stored');
rollback to savepoint whole;

select is(
  tests.ingest(:'alice', tests.signals(:'trader', 2)) - array['request_id', 'items'],
  '{"accepted": 2, "duplicate": 0, "rejected": 0, "first_seq": 1, "last_seq": 2}',
  'the next batch is stored');
select is(tests.messages(:'alice'), 1::bigint, 'and told again');

select * from finish();
rollback;
