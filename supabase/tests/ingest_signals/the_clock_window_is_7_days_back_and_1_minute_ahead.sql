begin;
\ir ../helpers.psql
select plan(3);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
-- Just after midnight: 7 days back ends in the oldest partition that is needed.
select tests.set_clock(date_trunc('day', now(), 'UTC') + interval '3 seconds') is null as stopped
\gset

select tests.ingest(:'alice', jsonb_agg(
  tests.signal(:'trader', jsonb_build_object('generated_at', tests.iso(private.clock() + shift)))
  order by place)) as verdict
from unnest(array[
  interval '0', interval '-7 days', interval '-7 days -1 microsecond', interval '60 seconds',
  interval '60 seconds 1 microsecond', interval '-1 month', interval '1 month'
]) with ordinality as edge (shift, place) \gset

select is(
  tests.refused(:'verdict'),
  array['2 stale', '4 in_future', '5 stale', '6 in_future'], 'both edges belong to the window');
select is(:'verdict'::jsonb ->> 'accepted', '3', 'what is within is stored');
select is_empty(
  'select from private.signals_default', 'in partitions of its own, not in the default one');

select * from finish();
rollback;
