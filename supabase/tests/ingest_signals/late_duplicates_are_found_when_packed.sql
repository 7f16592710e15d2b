begin;
\ir ../helpers.psql
\ir ../packing/packing.psql
select plan(11);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'alice', 'other') as other,
  tests.trader(:'bob') as foreign_trader \gset
select tests.signals_at(:'trader', array(
  select now() - interval '5 days' + n * interval '7 minutes 1 microsecond'
  from generate_series(1, 500) as n)) as late \gset

select is(
  tests.ingest(:'alice', :'late') ->> 'accepted', '500', 'signals of days ago are stored');
-- A transaction does not pack what it has just announced: one that committed stands in for it.
update private.accounts set packed_until = now() where account_id = :'alice';
select cmp_ok(tests.run('pack_step'), '>=', 500::bigint, 'and packed');
select is(
  (select count(*) from private.signals where account_no = tests.account_no(:'alice')), 0::bigint,
  'so none is in the table');

select is(
  (select array[count(*), count(*) filter (where code = '0')]
    from (select split_part(unnest(tests.refused(tests.ingest(:'alice', :'late'))), ' ', 2) as code)
      as refused where code = 'duplicate'),
  array[500::bigint, 0], 'each of them is a duplicate when it comes again');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    :'late'::jsonb -> 7,
    (:'late'::jsonb -> 7) || jsonb_build_object('trader_id', :'other'),
    (:'late'::jsonb -> 8) || '{"timeframe": "4h"}',
    (:'late'::jsonb -> 9) || '{"symbol": "NEW"}',
    (:'late'::jsonb -> 10) || jsonb_build_object('generated_at', tests.iso(
      (:'late'::jsonb -> 10 ->> 'generated_at')::timestamptz + interval '1 microsecond')),
    :'late'::jsonb -> 499, tests.signal(:'trader')))),
  array['0 duplicate', '5 duplicate'],
  'another trader, timeframe, symbol or time makes another signal');
select is(
  tests.ingest(:'bob', (
    select jsonb_agg(signal || jsonb_build_object('trader_id', :'foreign_trader'))
    from jsonb_array_elements(:'late'::jsonb) as signal)) ->> 'accepted', '500',
  'another account has packed none of them');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    (:'late'::jsonb -> 8) || '{"timeframe": "4h"}'))), array['0 duplicate'],
  'one that came after the packing is found in the table');
select is(
  (select array[account.last_seq, count(*), count(distinct signal.seq)]
    from private.accounts as account
    inner join private.stored_signals as signal on signal.account_no = account.account_no
    where account.account_id = :'alice' group by account.last_seq),
  array[505::bigint, 505, 505], 'all are stored once');
select is(
  private.verify_audit(:'alice', 1, null) ->> 'intact', 'true',
  'and the chain is intact over both tiers');

-- The chain is of values, not of rows: it does not matter where they are.
update private.segments set price_values[2] = price_values[2] + 1
where account_no = tests.account_no(:'alice');
select is(
  private.verify_audit(:'alice', 1, null)::jsonb -> 'broken',
  '{"link_no": 1, "problem": "content_changed"}', 'a value changed in a segment is named');
update private.segments set price_values[2] = price_values[2] - 1
where account_no = tests.account_no(:'alice');
delete from private.segments where account_no = tests.account_no(:'alice');
select is(
  private.verify_audit(:'alice', 1, null)::jsonb -> 'broken',
  '{"link_no": 1, "problem": "content_changed"}', 'and so is a segment that is gone');

select * from finish();
rollback;
