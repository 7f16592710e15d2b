begin;
\ir ../helpers.psql
\ir ../rollups/recount.psql
select plan(16);

select tests.set_clock('2026-06-15 12:00:00+00') \g /dev/null
select tests.account('free') as alice \gset
select tests.trader(:'alice', 'momentum', true) as trader \gset
select account_no from private.accounts where account_id = :'alice' \gset

-- 300 signals from January to March 2011, more than a day's allowance.
select jsonb_agg(tests.signal(:'trader', jsonb_build_object(
  'generated_at', tests.iso('2011-01-01 00:00:00+00'::timestamptz + number * interval '7 hours'),
  'price', number, 'symbol', 'S' || number % 3,
  'valid_until', tests.iso('2012-01-01 00:00:00+00'),
  'metadata', jsonb_build_object('number', number))) order by number) as history
from generate_series(1, 300) as number \gset

select private.import_signals(:'alice', '11111111-1111-4111-8111-111111111111', :'history') as verdict \gset
select is(
  :'verdict'::jsonb - 'request_id',
  '{"accepted": 300, "duplicate": 0, "rejected": 0, "first_seq": 1, "last_seq": 300, "items": []}',
  'signals of years ago are accepted, beyond the allowance of a day');
select is(
  private.import_signals(:'alice', '11111111-1111-4111-8111-111111111111', :'history')::text,
  :'verdict', 'the same request gets the same verdict');
select is(
  private.import_signals(:'alice', gen_random_uuid(), :'history')::jsonb ->> 'duplicate',
  '300', 'another request with the same signals stores nothing');
select is(
  tests.ask(:'alice', 'select public.my_account()') -> 'day' ->> 'used', '0',
  'the allowance of the day is not used');
select is(
  (select count(*) from private.signals where account_no = :account_no), 0::bigint,
  'nothing is in the table of new signals');
select results_eq(
  format(
    'select tableoid::regclass::text, signals from private.segments where account_no = %s '
    'order by first_generated_at', :account_no),
  $$ values ('private.segments_free_p20110101', 106), ('private.segments_free_p20110201', 96),
    ('private.segments_free_p20110301', 98) $$,
  'each month is a segment, in a partition that was made for it');
select is(
  (select count(*) from private.segments_free_default), 0::bigint, 'the DEFAULT partition is empty');
select is(
  (select string_agg(partition::text, ' ' order by starts) from private.partitions
    where parent = 'private.signal_events' and starts between '2011-01-01' and '2011-12-31'),
  'private.signal_events_p20110101 private.signal_events_p20110201 private.signal_events_p20110301',
  'what became of the signals has partitions, too');
select is(
  tests.pluck(tests.pages(:'alice', 'sort => ''seq'''), 'price'),
  tests.pluck(:'history'::jsonb, 'price'), 'they are read by seq, in the order of the request');
select is(
  tests.pages(:'alice', '"from" => ''2011-02-01'', "to" => ''2011-02-02''') #>> '{0,metadata,number}',
  '109', 'and by time, with every field');
select is(
  (select array_agg(status) from (
    select distinct value ->> 'status' as status
    from jsonb_array_elements(tests.pages(:'alice', 'sort => ''seq''')) as value) as found),
  array['expired'], 'what was valid until then has expired');
select ok(
  (private.verify_audit(:'alice', 1, null) ->> 'intact')::boolean
    and (select last_link_no from private.accounts where account_no = :account_no) = 1,
  'they are one link of the audit chain');
select tests.roll_up() \g /dev/null
select is_empty(
  format('select * from private.rollup_differences(%s)', :account_no),
  'rollups equal a recount');
select private.schedule_expiries('9223372036854775807') \g /dev/null
select is(
  (select count(*) from private.expiries where account_no = :account_no), 0::bigint,
  'nobody is told that they have expired');
select is(
  (select jsonb_agg(message.payload - array['broadcast_at', 'id'])
    from realtime.messages as message where topic = 'account:' || :'alice' || ':signals'),
  '[{"count": 300, "first_seq": 1, "last_seq": 300}]', 'subscribers are told of the range, once');
select is(
  (select count(*) from realtime.messages as message where topic = 'trader:' || :'trader' || ':signals'),
  1::bigint, 'and so are those of the trader''s own channel');

select * from finish();
rollback;
