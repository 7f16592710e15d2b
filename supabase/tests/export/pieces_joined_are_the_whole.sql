begin;
\ir ../helpers.psql
select plan(4);

select tests.account() as alice \gset
select set_config('tests.alice', :'alice', true) \g /dev/null
select tests.trader(:'alice') as trader \gset
-- The newest first: by time they are in the reverse order of seq.
select tests.ingest(:'alice', tests.signals(:'trader', 10)) ->> 'accepted' as stored \gset

create function tests.exported(after bigint, until bigint, options text default '')
returns text
language sql
as $$
  select tests.ask(
    current_setting('tests.alice')::uuid,
    format(
      'select to_jsonb(convert_from(public.export_signals(''csv'', %s, %s%s), ''UTF8''))',
      exported.after, exported.until, exported.options)) #>> '{}'
$$;

create function tests.pieces(options text default '')
returns text
language sql
as $$
  select string_agg(tests.exported(after, until, pieces.options), '' order by after)
  from (values (0, 3), (3, 3), (3, 5), (5, 9), (9, 20)) as piece (after, until)
$$;

select tests.exported(0, 20) as whole \gset
select is(tests.pieces(), :'whole', 'as rows');
-- Some of each block of three: the segment and the rows take turns.
with taken as (
  delete from private.signals as signal
  where signal.account_no = tests.account_no(:'alice') and signal.seq % 3 > 0
  returning signal
)
select private.store_segments(array_agg(taken.signal)) as packed from taken \gset
select is(tests.exported(0, 20), :'whole', 'a packed signal is the same line, at the same place');
select is(tests.pieces(), :'whole', 'and a piece ends where it ended');
select is(
  tests.pieces(', min_confidence => 0.1'), :'whole', 'with a filter that selects all, too');

select * from finish();
rollback;
