begin;
\ir ../helpers.psql
select plan(12);
select tests.pause_jobs() \g /dev/null

create function tests.usage(account_id uuid)
returns jsonb
language sql
as $$ select tests.ask(usage.account_id, 'select public.account_usage()') $$;
create function tests.pack()
returns void
language plpgsql
as $$
begin
  while private.pack_step() > 0 loop
    null;
  end loop;
end
$$;

select gen_random_uuid() as nobody \gset
select is(
  tests.usage(:'nobody') - 'account_id',
  '{
    "tier": "free", "day": {"used": 0, "limit": 100}, "minute": {"used": 0, "limit": null},
    "traders": {"used": 0, "limit": 10},
    "hot": {"signals": 0, "more": false, "bytes": 0}, "hot_limit": 1000,
    "warm": {"signals": 0, "more": false, "bytes": 0}, "warm_limit": 10000,
    "cold": {"signals": 0, "more": false, "bytes": 0}, "oldest_signal_at": null,
    "kept_days": {"1h": 30, "1d": 365, "signals": null}
  }',
  'an account that never used the service has the allowances of the free tier');

select tests.account('pro') as alice, tests.account('pro') as bob \gset
select tests.trader(:'alice') as trader \gset
select tests.trader(:'alice', 'retired') as retired \gset
select tests.ask(:'alice', format('select public.archive_trader(%L)', :'retired')) \g /dev/null
select tests.ingest(:'alice', tests.signals(:'trader', 30)) \g /dev/null
select tests.usage(:'alice') as usage \gset
select is(:'usage'::jsonb #>> '{hot,signals}', '30', 'new signals are hot');
select cmp_ok((:'usage'::jsonb #>> '{hot,bytes}')::integer, '>', 30 * 50, 'and take bytes');
select is(
  array[:'usage'::jsonb #>> '{day,used}', :'usage'::jsonb #>> '{minute,used}',
    :'usage'::jsonb #>> '{traders,used}'], '{30,30,1}',
  'what is used of the allowances counts active traders only');

-- Three days later they are packed; another ten days later they are cold.
select private.clock() as stored \gset
select tests.set_clock(:'stored'::timestamptz + interval '3 days') \g /dev/null
select tests.ingest(:'alice', tests.signals(:'trader', 5)) \g /dev/null
select tests.pack() \g /dev/null
set local search_path = public, extensions;
select tests.usage(:'alice') as usage \gset
select is(
  array[:'usage'::jsonb #>> '{hot,signals}', :'usage'::jsonb #>> '{warm,signals}',
    :'usage'::jsonb #>> '{cold,signals}'], '{5,30,0}', 'packed signals are warm for 7 days');
select is(
  (:'usage'::jsonb ->> 'oldest_signal_at')::timestamptz,
  :'stored'::timestamptz - interval '30 milliseconds', 'the oldest signal may be a packed one');
select tests.set_clock(:'stored'::timestamptz + interval '9 days') \g /dev/null
select tests.usage(:'alice') as usage \gset
select is(
  array[:'usage'::jsonb #>> '{hot,signals}', :'usage'::jsonb #>> '{warm,signals}',
    :'usage'::jsonb #>> '{cold,signals}'], '{5,0,30}', 'and then cold');

-- However many segments there are, so many are summed up.
create function tests.allow_segments(segments integer)
returns void
language plpgsql
as $$
begin
  execute regexp_replace(
    regexp_replace(pg_get_functiondef('private.packed_usage'::regproc), '> \d+', '> ' || segments),
    'limit \d+', 'limit ' || segments + 1);
end
$$;
select tests.set_clock(:'stored'::timestamptz + interval '11 days') \g /dev/null
select tests.pack() \g /dev/null
select tests.allow_segments(2) \g /dev/null
select is(
  (tests.usage(:'alice') -> 'cold') - 'bytes', '{"signals": 35, "more": false}',
  'two segments are all, when two may be looked at');
select tests.allow_segments(0) \g /dev/null
select cmp_ok((tests.usage(:'alice') #>> '{cold,signals}')::integer, '<', 35, 'else only the first');
select is(tests.usage(:'alice') #>> '{cold,more}', 'true', 'which says that there are others');
select is(
  (tests.usage(:'bob') #> '{hot,signals}', tests.usage(:'bob') #> '{cold,signals}')::text, '(0,0)',
  'another account is not told of them');
select is(
  tests.refusal(:'alice', 'select public.account_usage()', 'signals:write'),
  'PT403 insufficient_scope', 'a token needs the scope to read');

select * from finish();
rollback;
