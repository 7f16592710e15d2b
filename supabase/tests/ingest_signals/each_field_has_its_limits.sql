begin;
\ir ../helpers.psql
select plan(6);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset

-- At and beyond the edge of each field: the value and whether it is accepted.
create temporary table sent (index serial, field text, value jsonb, accepted boolean)
on commit drop;
insert into sent (field, value, accepted)
select field, value::jsonb, accepted
from (values
  ('trader_id', 'null', false),
  ('trader_id', '1', false),
  ('trader_id', '"' || replace(:'trader', '-', '') || '"', false),
  ('trader_id', '"{' || :'trader' || '}"', false),
  ('trader_id', '" ' || :'trader' || '"', false),
  ('symbol', '"A"', true),
  ('symbol', to_jsonb(repeat('A', 32))::text, true),
  ('symbol', to_jsonb(repeat('A', 33))::text, false),
  ('symbol', '"a1._/:=@#!&^+-"', true),
  ('symbol', '"BTC USD"', false),
  ('symbol', '" BTC"', false),
  ('symbol', '"BTC\n"', false),
  ('symbol', '"BTC,USD"', false),
  ('symbol', '"BTC\\USD"', false),
  ('symbol', '"ÄTH"', false),
  ('symbol', '"Ａ"', false),
  ('symbol', '1', false),
  ('symbol', 'null', false),
  ('symbol', '["BTC"]', false),
  ('timeframe', '"1s"', true),
  ('timeframe', '"1m"', true),
  ('timeframe', '"1M"', true),
  ('timeframe', '"1w"', true),
  ('timeframe', '"60m"', false),
  ('timeframe', '"1H"', false),
  ('timeframe', '" 1h"', false),
  ('timeframe', '1', false),
  ('timeframe', 'null', false),
  ('action', '"exit_short"', true),
  ('action', '"ENTER_LONG"', false),
  ('action', '""', false),
  ('action', 'null', false),
  ('action', '0', false),
  ('confidence', '0', true),
  ('confidence', '1', true),
  ('confidence', '1.0', true),
  ('confidence', '-0.0', true),
  ('confidence', '5e-324', true),
  ('confidence', '1e-400', false),
  ('confidence', '-0.0000001', false),
  ('confidence', '1.0000001', false),
  ('confidence', '1e400', false),
  ('confidence', '"0.5"', false),
  ('confidence', 'true', false),
  ('confidence', 'null', false),
  ('confidence', '[0.5]', false),
  ('price', '0', true),
  ('price', '-37.63', true),
  ('price', '1e15', true),
  ('price', '-1e15', true),
  ('price', '1000000000000000.1', false),
  ('price', '-1000000000000000.1', false),
  ('price', '1e-400', false),
  ('price', '-1e-400', false),
  ('price', '1e400', false),
  ('price', '"1"', false),
  ('price', 'false', false),
  ('price', 'null', false),
  ('stop_loss', 'null', true),
  ('stop_loss', '1e15', true),
  ('stop_loss', '1.1e15', false),
  ('stop_loss', '"1"', false),
  ('stop_loss', 'true', false),
  ('stop_loss', '{}', false),
  ('take_profit', 'null', true),
  ('take_profit', '-1e15', true),
  ('take_profit', '-1.1e15', false),
  ('take_profit', '"null"', false),
  ('take_profit', 'false', false),
  ('valid_until', 'null', true),
  ('valid_until', '"2999-12-31T23:59:59.999999Z"', true),
  ('valid_until', '"3000-01-01T00:00:00Z"', false),
  ('valid_until', '"2999-02-29T00:00:00Z"', false),
  ('valid_until', '"infinity"', false),
  ('valid_until', '""', false),
  ('valid_until', '1', false),
  ('valid_until', '{}', false),
  ('metadata', 'null', true),
  ('metadata', '{}', true),
  ('metadata', '[]', false),
  ('metadata', '"text"', false),
  ('metadata', '1', false),
  ('metadata', 'false', false)
) as line (field, value, accepted);
insert into sent (field, value, accepted)
values
('metadata', jsonb_build_object('k', repeat('x', 2048 - octet_length('{"k": ""}'))), true),
('metadata', jsonb_build_object('k', repeat('x', 2049 - octet_length('{"k": ""}'))), false),
('metadata', jsonb_build_object('k', repeat('é', 1019) || 'x'), true),
('metadata', jsonb_build_object('k', repeat('é', 1020)), false),
('metadata', jsonb_build_object('k', repeat('"', 1019) || 'x'), true),
('metadata', jsonb_build_object('k', repeat('"', 1020)), false);

create temporary table judged on commit drop as
select sent.*, item ->> 'code' as code
from sent
left join jsonb_array_elements(tests.ingest(:'alice', (
  select jsonb_agg(
    jsonb_set(
      tests.signal(:'trader', jsonb_build_object(
        'generated_at', tests.iso(now() - index * interval '1 second'))),
      array[field], value)
    order by index)
  from sent)) -> 'items') as item on (item ->> 'index')::integer = index - 1;

select is_empty(
  $$
    select field, left(value::text, 80), accepted, code
    from judged
    where accepted <> (code is null)
  $$,
  'each field takes what it should and nothing else');
select is_empty(
  $$select field, value, code from judged where code <> 'invalid_' || field$$,
  'and a value is refused with the code of its field');

select is(
  tests.refused(tests.ingest(
    :'alice', (select jsonb_agg(tests.signal(:'trader') - field order by place)
      from unnest(array['trader_id', 'symbol', 'timeframe', 'generated_at', 'action', 'confidence',
        'price']) with ordinality as required (field, place)))),
  array['0 invalid_trader_id', '1 invalid_symbol', '2 invalid_timeframe',
    '3 invalid_generated_at', '4 invalid_action', '5 invalid_confidence', '6 invalid_price'],
  'a required field that is missing has its code');

select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    tests.signal(:'trader', jsonb_build_object('valid_until', tests.iso(now()))),
    tests.signal(:'trader', jsonb_build_object(
      'symbol', 'LATER', 'valid_until', tests.iso(now() + interval '1 microsecond')))))),
  array['0 invalid_valid_until'], 'valid_until must be later than generated_at');

select throws_ok(
  format('select tests.ingest(%L, %L)', :'alice', '[{"metadata": {"k": "\u0000"}}]'),
  '22P05', null, 'NUL is no part of any text');
select throws_ok(
  format('select tests.ingest(%L, %L)', :'alice', '[{"metadata": {"k": "\ud800"}}]'),
  '22P02', null, 'nor is half of a surrogate pair');

select * from finish();
rollback;
