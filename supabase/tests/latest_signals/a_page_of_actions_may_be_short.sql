begin;
\ir ../helpers.psql
select plan(6);

-- 30 symbols, of which each signalled exit_long first and then enter_long.
select tests.account() as alice \gset
select tests.trader(:'alice') as one \gset
select tests.ingest(:'alice', (
  select jsonb_agg(tests.signal(:'one', jsonb_build_object(
    'symbol', 'S' || 100 + symbol, 'action', action,
    'generated_at', tests.iso(now() - seconds * interval '1 second'))))
  from generate_series(1, 30) as symbol
  cross join (values ('exit_long', 20), ('enter_long', 10)) as each (action, seconds)
)) ->> 'accepted' as stored \gset
select is(:'stored'::text, '60', 'all is stored');

create function tests.page(
  account_id uuid,
  cursor text
)
returns jsonb
language sql
as $$
  select tests.ask(page.account_id, format(
    'select public.latest_signals(actions => array[''exit_long''], cursor => %L)', page.cursor))
$$;

select tests.page(:'alice', null) as whole \gset
select is(
  jsonb_array_length(:'whole'::jsonb -> 'signals'), 30, 'what is found together is one page');

-- So many at once that nothing is looked for together: each is found by itself.
create or replace function private.counted_at_once()
returns integer
language sql
immutable
set search_path = ''
as 'select 20001';
select tests.page(:'alice', null) as first \gset
select is(
  jsonb_array_length(:'first'::jsonb -> 'signals'), 20, 'one by one only so many are found');
select tests.page(:'alice', :'first'::jsonb ->> 'next_cursor') as second \gset
select is(:'second'::jsonb -> 'next_cursor', 'null', 'the cursor leads to the end');
select is(
  (:'first'::jsonb -> 'signals') || (:'second'::jsonb -> 'signals'), :'whole'::jsonb -> 'signals',
  'pages joined are the whole, in its order');
select is(
  :'second'::jsonb -> 'since', :'first'::jsonb -> 'since', 'each page looks as far back');

select * from finish();
rollback;
