begin;
\ir ../helpers.psql
select plan(40);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset

-- How a new signal comes to each status.
create temporary table ways (status text, way text[], number integer) on commit drop;
insert into ways
values
('generated', '{}', 1),
('analyzed', '{analyzed}', 2),
('executed', '{executed}', 3),
('closed', '{executed,closed}', 4),
('expired', '{}', 5),
('cancelled', '{cancelled}', 6),
('rejected', '{analyzed,rejected}', 7);
select is(
  (select array_agg(status order by number) from ways), private.statuses(), 'all are tried');

-- One signal for each pair.
create temporary table pairs on commit drop as
select
  start.status as from_status, start.way, target.status as to_status,
  tests.signal(:'trader', jsonb_build_object('generated_at', tests.iso(
    private.clock() - start.number * interval '1 minute' - target.number * interval '1 second'))
    || case start.status when 'expired'
      then jsonb_build_object('valid_until', tests.iso(private.clock())) else '{}' end) as signal
from ways as start
cross join ways as target;

select is(
  tests.ingest(:'alice', (select jsonb_agg(signal) from pairs)) ->> 'accepted', '49',
  'a signal for each pair');
select is(
  tests.advance(:'alice', (
    select jsonb_agg(tests.change(signal, step) order by place)
    from pairs cross join unnest(way) with ordinality as each (step, place))) ->> 'rejected', '0',
  'each signal comes to where it starts');

create function tests.expected(from_status text, to_status text)
returns text[]
language sql
as $$
  select case
    when to_status in ('generated', 'expired') then array['0 invalid_status']
    when to_status = from_status then array['0 duplicate_change']
    when (from_status, to_status) in (
      ('generated', 'analyzed'), ('generated', 'executed'), ('generated', 'cancelled'),
      ('generated', 'rejected'), ('analyzed', 'executed'), ('analyzed', 'cancelled'),
      ('analyzed', 'rejected'), ('executed', 'closed')) then '{}'
    -- It was there on its way.
    when (from_status, to_status) in (('closed', 'executed'), ('rejected', 'analyzed'))
      then array['0 duplicate_change']
    else array['0 invalid_transition']
  end
$$;

select is(
  tests.refused(tests.advance(:'alice', jsonb_build_array(tests.change(signal, to_status)))),
  tests.expected(from_status, to_status), from_status || ' to ' || to_status)
from pairs
where to_status not in ('generated', 'expired')
order by from_status, to_status;
select is_empty(
  format($$
    select from_status, to_status from pairs
    where to_status in ('generated', 'expired') and tests.refused(
      tests.advance(%L, jsonb_build_array(tests.change(signal, to_status))))
      <> array['0 invalid_status']
  $$, :'alice'),
  'nobody makes a signal generated or expired');

select is(
  tests.refused(tests.advance(:'alice', jsonb_build_array(
    tests.change(signal, to_status, '{"reason": "again"}')))),
  array['0 invalid_transition'], 'the same status with other content: ' || to_status)
from pairs
where from_status = 'generated' and to_status = 'analyzed';

select * from finish();
rollback;
