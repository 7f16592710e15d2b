begin;
\ir ../helpers.psql
select plan(12);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader, tests.trader(:'alice', 'other') as other \gset

select tests.pause_jobs() \g /dev/null
-- As if no day had been packed yet.
delete from private.days;

-- Signals of the last six days, an hour apart, with two symbols, timeframes and traders at each
-- time; valid for ever, for a day or for 40 days.
select jsonb_agg(tests.signal(
  case number % 2 when 0 then :'trader' else :'other' end::uuid, jsonb_build_object(
    'generated_at', tests.iso(private.clock() - hour * interval '1 hour'),
    'symbol', case when number < 4 then 'BTC/USD' else 'ETH/USD' end,
    'timeframe', case when number / 2 % 2 = 0 then '1m' else '1h' end,
    'valid_until', case number % 3
      when 1 then tests.iso(private.clock() - (hour - 24) * interval '1 hour')
      when 2 then tests.iso(private.clock() - (hour - 960) * interval '1 hour') end))
  order by hour, number) as signals
from generate_series(0, 143) as hour cross join generate_series(0, 7) as number \gset
select tests.ingest(:'alice', :'signals') ->> 'accepted' as stored \gset

create function tests.pack()
returns integer
language plpgsql
as $$
declare
  v_steps integer := 0;
begin
  while private.pack_step() > 0 loop
    v_steps := v_steps + 1;
  end loop;
  return v_steps;
end
$$;
create function tests.statuses(account_id uuid)
returns jsonb
language sql
as $$
  select tests.ask(statuses.account_id, $query$
    select jsonb_agg(to_jsonb(each) order by each.seq)
    from private.statuses_of(array(
      select signal
      from private.signals_by_seq(
        private.caller_account_no('signals:read'), 1, 100000) as signal)) as each
  $query$)
$$;
-- Each fifth signal is executed, each tenth closed as well.
create function tests.changes(signals jsonb)
returns jsonb
language sql
as $$
  select jsonb_agg(tests.change(signal, status) order by place, status desc)
  from jsonb_array_elements(changes.signals) with ordinality as each (signal, place)
  cross join (values ('executed', 5), ('closed', 10)) as step (status, nth)
  where place % nth = 0
$$;

savepoint hot;
select tests.advance(:'alice', tests.changes(:'signals')) - 'request_id' as hot_verdict \gset
select tests.statuses(:'alice') as hot_statuses \gset
select cmp_ok(
  (:'hot_verdict'::jsonb ->> 'accepted')::integer, '>', 200, 'changes of hot signals are allowed');
select cmp_ok((:'hot_verdict'::jsonb ->> 'rejected')::integer, '>', 50, 'or refused');
rollback to savepoint hot;

select cmp_ok(tests.pack(), '>', 0, 'the job packs the days that are over');
select cmp_ok(
  (select sum(segment.signals) from private.segments as segment
    inner join private.accounts as account on account.account_no = segment.account_no
    where account.account_id = :'alice'), '>=', 760::bigint, 'most of the signals');
-- One more for a day that is packed already.
select tests.ingest(:'alice', jsonb_build_array(tests.signal(:'trader', jsonb_build_object(
  'generated_at', tests.iso(private.clock() - interval '3 days 1 minute'))))) ->> 'accepted' as late
\gset

select is(
  tests.advance(:'alice', tests.changes(:'signals')) - 'request_id', :'hot_verdict'::jsonb,
  'the verdict on packed signals is that on hot ones');
select is(
  (tests.statuses(:'alice') - 1152), :'hot_statuses'::jsonb, 'so are their statuses and outcomes');
select is(
  tests.advance(:'alice', tests.changes(:'signals')) ->> 'accepted', '0',
  'no change is recorded twice');

select is(
  tests.refused(tests.advance(:'alice', jsonb_build_array(tests.change(
    tests.signal(:'trader', jsonb_build_object('generated_at', generated_at)), 'analyzed')))),
  refused, why)
from (values
  (tests.iso(private.clock() - interval '3 days 1 minute'), '{}'::text[],
    'a late signal beside packed ones is found'),
  (tests.iso(private.clock() - interval '3 days 1 minute 1 microsecond'),
    array['0 unknown_signal'], 'between packed ones there is none'),
  (tests.iso(private.clock() - interval '30 days'), array['0 unknown_signal'],
    'nor before the first')
) as tried (generated_at, refused, why);

-- What is read for expiries may be packed as well.
delete from private.expiries;
update private.expiry_progress set read_before = pg_current_xact_id();
select is(
  private.schedule_expiries('9223372036854775807'), 1153::bigint,
  'the job for expiries reads packed signals');
select is(
  (select sum(expiry.signals) from private.expiries as expiry
    inner join private.accounts as account on account.account_no = expiry.account_no
    where account.account_id = :'alice'),
  144 * 5::bigint, 'and their valid_until');

select * from finish();
rollback;
