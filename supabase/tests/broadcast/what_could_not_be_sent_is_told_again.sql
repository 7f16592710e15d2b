begin;
\ir ../helpers.psql
select plan(17);
-- The warnings are expected here.
set local client_min_messages = error;

select tests.pause_jobs() \g /dev/null
-- What other tests have left.
delete from private.pending_broadcasts;
update private.live_state set broadcast_interval = '0';
select tests.account() as alice \gset
select tests.trader(:'alice', 'loud', true) as trader \gset

create function tests.told()
returns text[]
language sql
as $$
  select coalesce(array_agg(concat_ws(
    ' ', split_part(message.topic, ':', 1), message.event,
    concat(message.payload ->> 'first_seq', '-', message.payload ->> 'last_seq')
  ) order by message.payload ->> 'broadcast_at', message.topic), '{}')
  from realtime.messages as message
  where message.topic like any(array[
    '%' || current_setting('tests.alice') || '%', '%' || current_setting('tests.trader') || '%'])
$$;
create function tests.failing()
returns text
language sql
as $$
  select concat_ws(' ', value, ok, hint) from public.operations_health
  where name = 'broadcasts_failing'
$$;
create function tests.retry()
returns bigint
language sql
as $$
  update private.pending_broadcasts set due_at = clock_timestamp();
  select private.tell_due()
$$;
select set_config('tests.alice', :'alice', true), set_config('tests.trader', :'trader', true)
\g /dev/null

-- As when the Realtime server has made no partition: realtime.send only warns. Its inserted_at is in
-- the zone of the function, here five days ahead.
alter function private.send_broadcast(jsonb, text, text) set timezone = '<ahead>-120';
select is(tests.failing(), '0 t', 'all is well');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted', '2',
  'without a partition for messages the batch is stored');
select is(tests.told(), '{}', 'and nothing is told');
select is(
  (select row(first_seq, first_event_seq, cardinality(trader_nos), failures)
    from private.pending_broadcasts), row(1::bigint, null::bigint, 1, 1),
  'it is noted, though realtime.send has swallowed the error');
select is(
  tests.failing(), '1 f realtime.send has stored nothing; its warning in the log says why',
  'operations_health says so');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 1, 10)) ->> 'accepted', '1',
  'the next batch is stored');
select is(
  tests.advance(:'alice', jsonb_build_array(
    tests.change(tests.signals(:'trader', 1) -> 0, 'analyzed'))) ->> 'accepted', '1',
  'and so is a change');
select is(
  (select failures from private.pending_broadcasts), 1,
  'which wait for the next try instead of failing each by itself');
select is(tests.retry(), 1::bigint, 'the job tries again');
select ok(
  (select failures = 2 and due_at between clock_timestamp() + interval '4 seconds'
    and clock_timestamp() + interval '5 seconds' from private.pending_broadcasts),
  'and, when it fails again, in 5 seconds once more');

alter function private.send_broadcast(jsonb, text, text) set timezone = 'UTC';
select is(tests.retry(), 1::bigint, 'with a partition');
select is(
  tests.told(),
  array['account signals_ingested 1-3', 'trader signals_ingested 1-3', 'account signals_advanced 1-1'],
  'all is told that was not');
select is_empty('select from private.pending_broadcasts', 'and done with');
select is(tests.failing(), '0 t', 'all is well again');

-- An error that a broadcast of events meets first.
alter function private.send_broadcast(jsonb, text, text) set timezone = '<ahead>-120';
select is(
  tests.advance(:'alice', jsonb_build_array(
    tests.change(tests.signals(:'trader', 1) -> 0, 'executed'))) ->> 'accepted', '1',
  'a change is stored');
alter function private.send_broadcast(jsonb, text, text) set timezone = 'UTC';
select tests.retry() as told \gset
select is((tests.told())[4:], array['account signals_advanced 2-2'], 'and told later');

-- Not even this can fail an ingest.
alter table private.pending_broadcasts add constraint planted check (account_no is null) not valid;
alter function private.send_broadcast(jsonb, text, text) set timezone = '<ahead>-120';
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 1, 30)) ->> 'accepted', '1',
  'a batch is stored even where it cannot be noted that it was not told');

select * from finish();
rollback;
