begin;
\ir ../helpers.psql
select plan(5);
set local timezone = 'UTC';
select tests.pause_jobs() \g /dev/null

create function tests.finish(step regproc)
returns void
language plpgsql
as $$
declare
  v_progress bigint := 1;
begin
  while v_progress > 0 loop
    execute format('select %s()', finish.step) into v_progress;
  end loop;
  perform set_config('search_path', 'public, extensions', true);
end
$$;
-- The partition of the moment at which the signals are stored.
select private.clock() as stored \gset
create temporary view the_day as
select 'there'::text as is from private.partitions
where parent = 'private.signals' and starts <= :'stored' and ends > :'stored';

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 10)) \g /dev/null
select tests.set_clock(:'stored'::timestamptz + interval '12 days') \g /dev/null
select tests.finish('private.partitions_step') \g /dev/null
select tests.finish('private.retention_step') \g /dev/null
select results_eq('select * from the_day', array['there'], 'a day is not dropped before it is packed');

select tests.finish('private.pack_step') \g /dev/null
select is_empty(
  format('select from private.signals where generated_at <= %L', :'stored'), 'then it is packed');
select tests.finish('private.retention_step') \g /dev/null
select results_eq(
  'select * from the_day', array['there'],
  'nor before its space was given back: an older reader may see the rows there');

-- What reclaim_step does once no such reader is left.
update private.days set last_packed_by = null \g /dev/null
-- Autovacuum may have the partition just now, and a step waits 200 ms for it: the job comes again.
do $$
begin
  for try in 1..50 loop
    perform tests.finish('private.retention_step');
    exit when not exists (select from the_day);
    perform pg_sleep(0.1);
  end loop;
end
$$;
select is_empty('select * from the_day', 'then it is');
select is(
  (select count(*)::integer from public.signals where account_id = :'alice'), 10,
  'and all signals are there');

select * from finish();
rollback;
