begin;
\ir ../helpers.psql
select plan(39);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset

-- 60 signals, of which six at a time share one generated_at, over three days: ties at every page.
create function tests.tied(trader_id uuid)
returns jsonb
language sql
as $$
  select jsonb_agg(
    tests.signal(tied.trader_id, jsonb_build_object(
      'symbol', 'S' || number % 6, 'price', number, 'confidence', number % 4 / 4.0,
      'generated_at', tests.iso(now() - number / 6 * interval '7 hours'
        - number / 6 % 2 * interval '1 microsecond')))
    order by md5(number::text))
  from generate_series(0, 59) as number
$$;
select tests.ingest(:'alice', tests.tied(:'trader')) ->> 'accepted' as stored,
  tests.ingest(:'bob', tests.tied(:'foreign_trader')) ->> 'accepted' as foreign_stored \gset

create temporary table stored on commit drop as
select signal.seq, signal.generated_at, signal.symbol, signal.confidence
from private.signals as signal
inner join private.accounts as account on account.account_no = signal.account_no
where account.account_id = :'alice';

select is(
  tests.pluck(tests.pages(:'alice', format('page_size => %s', size)), 'seq'),
  (select array_agg(seq::text order by generated_at desc, seq desc) from stored),
  'newest first, pages of ' || size)
from unnest(array[1, 5, 6, 7, 59, 60, 1000]) as size;
select is(
  tests.pluck(tests.pages(:'alice', format('sort => ''seq'', page_size => %s', size)), 'seq'),
  (select array_agg(seq::text order by seq) from stored), 'by seq, pages of ' || size)
from unnest(array[1, 7, 60]) as size;
-- The other orders in SQL.
create function tests.in_order(sort text)
returns text[]
language plpgsql
as $$
declare
  v_seqs text[];
begin
  execute 'select array_agg(seq::text order by ' || case in_order.sort
    when 'oldest' then 'generated_at, seq'
    when '-seq' then 'seq desc'
    when 'confidence' then 'confidence, generated_at desc, seq desc'
    when '-confidence' then 'confidence desc, generated_at desc, seq desc'
    when 'symbol' then 'symbol, generated_at desc, seq desc'
    when '-symbol' then 'symbol desc, generated_at desc, seq desc'
  end || ') from stored' into v_seqs;
  return v_seqs;
end
$$;
select is(
  tests.pluck(tests.pages(:'alice', format('sort => %L, page_size => %s', sort, size)), 'seq'),
  tests.in_order(sort), format('%s, pages of %s', sort, size))
from unnest(array['oldest', '-seq', 'confidence', '-confidence', 'symbol', '-symbol']) as sort,
  unnest(array[1, 7, 59, 60]) as size;
select is(
  tests.pluck(tests.pages(:'alice', 'page_size => 4, after_seq => 30'), 'seq'),
  (select array_agg(seq::text order by seq) from stored where seq > 30), 'after a seq');
select is(
  tests.pluck(tests.pages(:'alice', format(
    'page_size => 2, symbols => array[''S1'', ''S4''], "to" => %L', now() - interval '1 day')),
    'seq'),
  (select array_agg(seq::text order by signal.generated_at desc, seq desc)
    from private.signals as signal inner join stored using (seq)
    where account_no = (select account_no from private.accounts where account_id = :'alice')
      and signal.symbol in ('S1', 'S4') and signal.generated_at < now() - interval '1 day'),
  'with a filter');

-- The last page says so, also when it is full.
select is(
  tests.ask(:'alice', 'select public.query_signals(page_size => 60)') ->> 'next_cursor', null,
  'a full last page has no next one');
select isnt(
  tests.ask(:'alice', 'select public.query_signals(page_size => 59)') ->> 'next_cursor', null,
  'one signal more has');

-- What arrives while someone pages newest first is newer: the pages do not shift.
select tests.ask(:'alice', 'select public.query_signals(page_size => 30)') as first \gset
select tests.ingest(:'alice', jsonb_build_array(tests.signal(:'trader', '{"symbol": "NEW"}')))
  ->> 'accepted' as stored \gset
select is(
  tests.pluck(:'first'::jsonb -> 'signals', 'seq') || tests.pluck(
    tests.ask(:'alice', format('select public.query_signals(page_size => 30, cursor => %L)',
      :'first'::jsonb ->> 'next_cursor')) -> 'signals', 'seq'),
  (select array_agg(seq::text order by generated_at desc, seq desc) from stored),
  'a signal that arrives between two pages shifts nothing');

select * from finish();
rollback;
