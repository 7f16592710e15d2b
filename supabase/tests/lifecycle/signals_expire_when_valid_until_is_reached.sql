begin;
\ir ../helpers.psql
select plan(30);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset

-- The batches and expiries of other tests are no part of this.
delete from private.expiries;
update private.expiry_progress set read_before = pg_current_xact_id();

-- Times are noon and later, so that the minutes are known.
select date_trunc('hour', now()) as noon \gset
select tests.set_clock(:'noon') is null as stopped \gset

-- Signals of noon by number, valid until so long after it; null for ever.
create function tests.valid(trader_id uuid, number integer, valid interval)
returns jsonb
language sql
as $$
  select tests.signal(valid.trader_id, jsonb_build_object(
    'generated_at', tests.iso(private.clock() - number * interval '1 second'),
    'valid_until', tests.iso(private.clock() + valid.valid)))
$$;
select jsonb_build_array(
  tests.valid(:'trader', 1, '90 seconds'), tests.valid(:'trader', 2, '60 seconds'),
  tests.valid(:'trader', 3, '60.000001 seconds'), tests.valid(:'trader', 4, null),
  tests.valid(:'trader', 5, '120 seconds'), tests.valid(:'trader', 6, '120 seconds'),
  tests.valid(:'trader', 7, '30 days')) as signals,
  jsonb_build_array(tests.valid(:'foreign_trader', 1, '100 seconds')) as foreign_signals \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored,
  tests.ingest(:'bob', :'foreign_signals') ->> 'accepted' as told \gset

create function tests.statuses(account_id uuid)
returns text[]
language sql
as $$
  select tests.pluck(tests.ask(statuses.account_id, $query$
    select jsonb_agg(each order by each.seq)
    from private.statuses_of(array(select signal from private.signals as signal)) as each
  $query$), 'status')
$$;
create function tests.step(account_id uuid, signal jsonb, status text)
returns text[]
language sql
as $$
  select tests.refused(tests.advance(step.account_id, jsonb_build_array(
    tests.change(step.signal, step.status))))
$$;
-- All that is written here is of one transaction: the job would wait for its end.
create function tests.expire()
returns bigint
language sql
as $$ select private.schedule_expiries('9223372036854775807') + private.expire_due() $$;
create function tests.events(account_id uuid)
returns jsonb
language sql
as $$ select tests.ask(events.account_id, 'select public.query_events()') -> 'events' $$;

-- Signal 5 is analyzed, signal 6 executed before its time.
select tests.step(:'alice', :'signals'::jsonb -> 4, 'analyzed') as analyzed,
  tests.step(:'alice', :'signals'::jsonb -> 5, 'executed') as executed \gset
select is(
  tests.statuses(:'alice'), array['generated', 'generated', 'generated', 'generated', 'analyzed',
    'executed', 'generated'], 'at noon nothing has expired');
select is(tests.expire(), 8::bigint, 'the job reads what is new');
select is(tests.expire(), 0::bigint, 'once, and nothing is due');
select is(
  (select read_before from private.expiry_progress), '9223372036854775807'::xid8,
  'it remembers how far it came');

select tests.set_clock(:'noon'::timestamptz + interval '59.999999 seconds') is null as later \gset
select is(
  (tests.statuses(:'alice'))[2], 'generated', 'a microsecond before valid_until it may be used');
savepoint before;
select is(tests.step(:'alice', :'signals'::jsonb -> 1, 'executed'), '{}', 'and is');
rollback to savepoint before;

select tests.set_clock(:'noon'::timestamptz + interval '60 seconds') is null as later \gset
select is(
  tests.statuses(:'alice'), array['generated', 'expired', 'generated', 'generated', 'analyzed',
    'executed', 'generated'], 'at valid_until it has expired, and no other');
select is(
  tests.ask(:'alice', $$
    select to_jsonb(each.status_since) from private.statuses_of(
      array(select signal from private.signals as signal)) as each where each.seq = 2
  $$) #>> '{}', to_jsonb(:'noon'::timestamptz + interval '60 seconds') #>> '{}',
  'since valid_until');
select is(
  tests.step(:'alice', :'signals'::jsonb -> 1, 'executed'), array['0 invalid_transition'],
  'and takes no change, whether the job ran or not');
select is(tests.expire(), 1::bigint, 'the job tells one');
select is(
  (tests.events(:'alice') -> -1) - array['occurred_at', 'received_at'], '{
    "seq": 3, "status": "expired", "signal_seq": 2, "signal_id": null, "trader_id": null,
    "symbol": null, "timeframe": null, "generated_at": null, "entry_price": null,
    "exit_price": null, "close_reason": null, "return": null, "fees": null, "reason": null,
    "expired_seqs": [[2, 2]]
  }', 'by an event with the next seq');
select is(
  (tests.events(:'alice') #>> '{-1,occurred_at}')::timestamptz,
  :'noon'::timestamptz + interval '60 seconds', 'that says when');
select is(tests.expire(), 0::bigint, 'once');

-- A transaction that began before, but got the lock after the job.
select tests.set_clock(:'noon'::timestamptz + interval '59 seconds') is null as earlier \gset
select is(
  tests.step(:'alice', :'signals'::jsonb -> 1, 'executed'), array['0 invalid_transition'],
  'what was told as expired stays so for a transaction that began before');
select is(
  tests.step(:'alice', :'signals'::jsonb -> 6, 'analyzed'), '{}', 'others are not concerned');

select tests.set_clock(:'noon'::timestamptz + interval '3 days') is null as later \gset
select is(
  tests.statuses(:'alice'), array['expired', 'expired', 'expired', 'generated', 'expired',
    'executed', 'analyzed'], 'later all have that nothing ended before');
select is(tests.expire(), 5::bigint, 'after days of downtime the job tells what is due');
select is(
  tests.events(:'alice') #> '{-1,expired_seqs}', '[[1, 1], [3, 3], [5, 5]]'::jsonb,
  'in one event, without the executed one');
select is(
  tests.pluck(tests.events(:'alice'), 'seq'), array['1', '2', '3', '4', '5'],
  'the seq of events has no gap');
select is(
  tests.pluck(tests.events(:'bob'), 'expired_seqs'), array['[[1, 1]]'], 'bob has an event of his own');
select is(tests.expire(), 0::bigint, 'then nothing is left');
select is(
  tests.step(:'alice', :'signals'::jsonb -> 5, 'closed'), '{}',
  'an executed signal is closed after its valid_until');
select is(
  (select array_agg(payload -> 'count' order by payload -> 'first_seq') from realtime.messages
    where event = 'signals_advanced' and topic like '%' || :'alice' || '%'),
  array_fill('1'::jsonb, array[6]), 'each event was told');
select is(
  (select payload #> '{changes,0,expired_seqs}' from realtime.messages
    where event = 'signals_advanced' and topic like '%' || :'bob' || '%'),
  '[[1, 1]]'::jsonb, 'an expiry with its seqs');

-- Born expired: a signal that came late.
select tests.ingest(:'bob', jsonb_build_array(tests.signal(:'foreign_trader', jsonb_build_object(
  'generated_at', tests.iso(:'noon'::timestamptz),
  'valid_until', tests.iso(:'noon'::timestamptz + interval '1 hour'))))) ->> 'accepted' as late \gset
select is(
  tests.statuses(:'bob'), array['expired', 'expired'], 'a signal may be expired when it comes');

-- The same as links of the chain.
select is(
  (select array_agg(link.digest = private.events_digest(
      link.account_no, link.first_seq, link.last_seq))
    from audit.links as link
    inner join private.accounts as account on account.account_no = link.account_no
    where account.account_id = :'alice' and link.kind = 'events'),
  array_fill(true, array[6]), 'each event has its link in the audit chain');

-- Many runs: events stay small.
select tests.account() as carol \gset
select tests.trader(:'carol') as carols_trader \gset
select tests.ingest(:'carol', (
  select jsonb_agg(tests.valid(:'carols_trader', number, case number % 2 when 1 then interval '1 minute' end))
  from generate_series(1, 501) as number)) ->> 'accepted' as stored \gset
update private.expiry_progress set read_before = pg_current_xact_id();
select tests.set_clock(:'noon'::timestamptz + interval '4 days') is null as later \gset
select cmp_ok(private.schedule_expiries('9223372036854775807'), '>=', 501::bigint, 'all is read');
select cmp_ok(private.expire_due(), '>=', 251::bigint, 'and due');
select is(
  (select array_agg(jsonb_array_length(event -> 'expired_seqs'))
    from jsonb_array_elements(tests.events(:'carol')) as event),
  array[100, 100, 51], 'an event has at most 100 runs of signals');
select is(
  (select sum((part ->> 1)::bigint - (part ->> 0)::bigint + 1)
    from jsonb_array_elements(tests.events(:'carol')) as event,
      jsonb_array_elements(event -> 'expired_seqs') as part),
  251::numeric, 'all that expired are in one of them');

select * from finish();
rollback;
