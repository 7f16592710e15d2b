begin;
\ir ../helpers.psql
select plan(9);
set local timezone = 'UTC';
select tests.pause_jobs() \g /dev/null

create function tests.retain()
returns integer
language plpgsql
as $$
declare
  v_steps integer := 0;
begin
  while private.partitions_step() > 0 loop
    null;
  end loop;
  while private.retention_step() > 0 loop
    v_steps := v_steps + 1;
  end loop;
  perform set_config('search_path', 'public, extensions', true);
  return v_steps;
end
$$;
-- Whether a set still has the partition of a moment.
create function tests.has(parent text, moment timestamptz)
returns boolean
language sql
as $$
  select exists (
    select from private.partitions as made
    where made.parent = has.parent and made.starts <= has.moment and has.moment < made.ends)
$$;

-- The heap as the packer and reclaim_step leave it: what else is stored here is left aside.
delete from private.signals;
update private.days set last_packed_by = null;

select is(tests.retain(), 0, 'today nothing is past its retention');

select tests.set_clock('2027-03-10T12:00:00Z') \g /dev/null
select tests.retain() \g /dev/null
select set_eq(
  $$
    select distinct parent from private.partitions
    where ends < private.clock() - interval '8 days'
  $$,
  array['audit.links', 'private.segments_elite', 'private.segments_free', 'private.segments_pro',
    'private.signal_events', 'private.rollups_1h', 'private.rollups_1d', 'private.batches',
    'private.advances'],
  'months later the empty days of the heap are gone');
select ok(
  tests.has('private.rollups_1h', '2027-02-08T12:00:00Z')
    and not tests.has('private.rollups_1h', '2027-01-31T12:00:00Z'),
  'hours stay 30 days, to the month');
select ok(tests.has('private.rollups_1d', '2026-12-31T12:00:00Z'), 'days stay a year');
select ok(
  tests.has('private.batches', '2027-02-24T12:00:00Z')
    and not tests.has('private.batches', '2027-02-21T12:00:00Z'),
  'the ledger stays 14 days, to the week');
select ok(
  tests.has('private.segments_free', '2026-11-22T12:00:00Z')
    and tests.has('private.signal_events', '2026-11-22T12:00:00Z')
    and tests.has('audit.links', '2026-11-22T12:00:00Z'),
  'signals, their events and the audit stay for ever');

update private.retention set keep = '60 days' where data = '1h' and tier = 'elite';
select tests.set_clock('2027-04-20T12:00:00Z') \g /dev/null
select tests.retain() \g /dev/null
select ok(
  tests.has('private.rollups_1h', '2027-02-19T12:00:00Z')
    and not tests.has('private.rollups_1h', '2027-01-31T12:00:00Z'),
  'what is stored for all tiers together goes by the longest');
update private.retention set keep = null where data = '1h' and tier = 'pro';
select tests.set_clock('2030-01-01T00:00:00Z') \g /dev/null
select is_empty(
  'select from private.expired_partitions() where parent = ''private.rollups_1h''',
  'and never, when one tier keeps it for ever');
select throws_ok(
  'update private.retention set keep = ''6 days''', '23514', null,
  'nothing is kept for less than the days in which signals may be late');

select * from finish();
rollback;
