begin;
\ir ../helpers.psql
select plan(9);

select tests.set_clock('2026-06-15 12:00:00+00') \g /dev/null
select tests.account('pro') as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select private.ensure_partitions(parent, month, month)
from unnest(array['private.segments_pro', 'private.signal_events']) as parent
cross join unnest(array['1970-01-01', '2024-01-01', '2025-06-01', '2026-06-01']::timestamptz[]) as month
\g /dev/null
update private.retention set keep = '1 year' where data = 'signals' and tier = 'pro';

create function tests.imported(generated_at timestamptz, changes jsonb default '{}')
returns text[]
language sql
as $$
  select tests.refused(private.import_signals(account.account_id, gen_random_uuid(), jsonb_build_array(
    tests.signal(trader.trader_id, jsonb_build_object('generated_at', tests.iso(imported.generated_at)))
      || imported.changes))::jsonb)
  from private.accounts as account
  inner join private.traders as trader using (account_no)
  where account.account_id = current_setting('tests.importer')::uuid
$$;
select set_config('tests.importer', :'alice', true) \g /dev/null

select is(tests.imported('2025-06-15 12:00:00+00'), '{}', 'as old as the tier keeps signals is taken');
select is(
  tests.imported('2025-06-15 11:59:59.999999+00'), array['0 stale'],
  'older is not: retention would drop it');
update private.retention set keep = null where data = 'signals';
select is(tests.imported('1970-01-01 00:00:00+00'), '{}', 'a tier that keeps for ever takes all since 1970');
select is(tests.imported('1969-12-31 23:59:59+00'), array['0 stale'], 'what is before is a mistake');
select is(tests.imported('2026-06-15 12:01:00+00'), '{}', 'as new as ingest takes is taken');
select is(tests.imported('2026-06-15 12:01:00.000001+00'), array['0 in_future'], 'newer is not');
select is(
  tests.imported('2024-01-01', jsonb_build_object('trader_id', :'foreign_trader'::uuid)),
  array['0 unknown_trader'], 'a trader of another account is unknown');
select tests.ask(:'alice', format('select public.archive_trader(%L)', :'trader')) \g /dev/null
select is(tests.imported('2024-01-01'), array['0 unknown_trader'], 'so is an archived one');
select throws_ok(
  'select private.import_signals(gen_random_uuid(), gen_random_uuid(), ''[]'')', 'PT404', null,
  'an account is not made by an import');

select * from finish();
rollback;
