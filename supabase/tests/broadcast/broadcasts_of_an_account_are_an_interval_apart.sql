begin;
\ir ../helpers.psql
select plan(25);

select tests.pause_jobs() \g /dev/null
-- What other tests have left.
delete from private.pending_broadcasts;
update private.live_state set broadcast_interval = '0';
select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice', 'quiet') as quiet, tests.trader(:'alice', 'loud', true) as loud,
  tests.trader(:'bob') as bobs \gset

-- What was sent to a topic, in order: 'signals_ingested 3-5 carried'.
create function tests.told(topic text)
returns text[]
language sql
as $$
  select coalesce(array_agg(concat_ws(
    ' ', message.event, concat(message.payload ->> 'first_seq', '-', message.payload ->> 'last_seq'),
    case when message.payload ?| array['signals', 'changes'] then 'carried' end
  ) order by message.payload ->> 'broadcast_at'), '{}')
  from realtime.messages as message
  where message.topic = told.topic
$$;
create function tests.end_intervals()
returns bigint
language sql
as $$
  update private.pending_broadcasts set due_at = clock_timestamp() - interval '1 millisecond';
  select private.tell_due()
$$;
select 'account:' || :'alice' || ':signals' as topic, 'account:' || :'bob' || ':signals' as bobs_topic,
  'trader:' || :'loud' || ':signals' as loud_topic \gset

select tests.ingest(:'alice', tests.signals(:'quiet', 2)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 10)) ->> 'accepted' as stored \gset
select is(
  tests.told(:'topic'), array['signals_ingested 1-2 carried', 'signals_ingested 3-3 carried'],
  'without an interval each batch is told at once');
select is_empty('select from private.pending_broadcasts', 'and nothing is noted');

update private.live_state set broadcast_interval = '1 hour';
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 20)) ->> 'accepted' as stored \gset
select is(
  (tests.told(:'topic'))[3], 'signals_ingested 4-4 carried',
  'with one, whoever has not been told of lately is told of at once');
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 30)) ->> 'accepted' as stored \gset
select tests.ingest(:'alice', tests.signals(:'loud', 2, 40)) ->> 'accepted' as stored \gset
select tests.advance(:'alice', jsonb_agg(tests.change(signal, 'analyzed'))) ->> 'accepted' as advanced
from jsonb_array_elements(tests.signals(:'quiet', 2)) as signal \gset
select is(cardinality(tests.told(:'topic')), 3, 'what comes within the interval waits');
select is(tests.told(:'loud_topic'), '{}', 'for the channel of a trader, too');
select is(
  (select row(first_seq, first_event_seq, cardinality(trader_nos), failures)
    from private.pending_broadcasts), row(5::bigint, 1::bigint, 1, 0),
  'it is noted from where it waits');
select is(private.tell_due(), 0::bigint, 'the job leaves it alone as well');
select tests.ingest(:'bob', tests.signals(:'bobs', 1)) ->> 'accepted' as stored \gset
select is(
  tests.told(:'bobs_topic'), array['signals_ingested 1-1 carried'],
  'the intervals of others are their own');

select is(tests.end_intervals(), 2::bigint, 'the job tells what is due');
select is(
  (tests.told(:'topic'))[4:],
  array['signals_ingested 5-7 carried', 'signals_advanced 1-2 carried'],
  'one broadcast tells of all batches, and one of all events, after the signals');
select is(
  tests.told(:'loud_topic'), array['signals_ingested 5-7'], 'and the channel of the trader');
select is(cardinality(tests.told(:'bobs_topic')), 1, 'bob, who has nothing new, is not told');
select is_empty(
  format('select from private.pending_broadcasts where account_no = %s', tests.account_no(:'bob')),
  'and forgotten');
select ok(
  (select due_at > clock_timestamp() + interval '59 minutes' and first_seq is null
    and first_event_seq is null and trader_nos = '{}' from private.pending_broadcasts),
  'alice''s next interval has begun');

select tests.ingest(:'alice', tests.signals(:'quiet', 30, 100)) ->> 'accepted' as stored \gset
update private.pending_broadcasts set due_at = clock_timestamp();
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 50)) ->> 'accepted' as stored \gset
select is(
  (tests.told(:'topic'))[6:], array['signals_ingested 8-38'],
  'the next batch after the interval takes along what waited; more than 20 are not carried');
select tests.advance(:'alice', jsonb_agg(tests.change(signal, 'executed'))) ->> 'accepted' as advanced
from jsonb_array_elements(tests.signals(:'quiet', 1)) as signal \gset
update private.pending_broadcasts set due_at = clock_timestamp();
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 60)) ->> 'accepted' as stored \gset
select is(
  (tests.told(:'topic'))[7:],
  array['signals_ingested 39-39 carried', 'signals_advanced 3-3 carried'],
  'and so does a batch with events that waited');

-- A signal that has been advanced while it waited.
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 70)) ->> 'accepted' as stored \gset
select tests.advance(:'alice', jsonb_agg(tests.change(signal, 'analyzed'))) ->> 'accepted' as advanced
from jsonb_array_elements(tests.signals(:'quiet', 1, 70)) as signal \gset
select tests.end_intervals() as told \gset
select is(
  (select array_agg(payload -> 'signals' -> 0 ->> 'status') from realtime.messages
    where topic = :'topic' and payload -> 'first_seq' = '40'), array['generated'],
  'is told as it was generated, and then its event');

-- The interval ends while something waits.
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 80)) ->> 'accepted' as stored \gset
update private.live_state set broadcast_interval = '0';
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 81)) ->> 'accepted' as stored \gset
select is(
  (tests.told(:'topic'))[11:], '{}', 'what waits goes first, also when no interval is needed any more');
select tests.end_intervals() as told \gset
select is((tests.told(:'topic'))[11:], array['signals_ingested 41-42 carried'], 'then it is told');
select is_empty('select from private.pending_broadcasts', 'and nothing is noted any more');
select tests.ingest(:'alice', tests.signals(:'quiet', 1, 82)) ->> 'accepted' as stored \gset
select is(
  (tests.told(:'topic'))[12:], array['signals_ingested 43-43 carried'], 'the next batch is told at once');

-- An interval that is not needed any more, while nothing waits.
update private.live_state set broadcast_interval = '1 hour';
select tests.ingest(:'bob', tests.signals(:'bobs', 1, 10)) ->> 'accepted' as stored \gset
update private.live_state set broadcast_interval = '0';
select tests.ingest(:'bob', tests.signals(:'bobs', 1, 20)) ->> 'accepted' as stored \gset
select is(
  tests.told(:'bobs_topic'),
  array['signals_ingested 1-1 carried', 'signals_ingested 2-2 carried', 'signals_ingested 3-3 carried'],
  'is not waited for');

select is(
  (select sum((payload ->> 'count')::bigint) from realtime.messages
    where topic = :'topic' and event = 'signals_ingested'),
  (select last_seq::numeric from private.accounts where account_id = :'alice'),
  'every signal was told once');
select is(
  (select sum((payload ->> 'count')::bigint) from realtime.messages
    where topic = :'topic' and event = 'signals_advanced'),
  (select last_event_seq::numeric from private.accounts where account_id = :'alice'),
  'every event too');
select is(private.broadcast_step(), 0::bigint, 'the job has nothing left to do');

select * from finish();
rollback;
