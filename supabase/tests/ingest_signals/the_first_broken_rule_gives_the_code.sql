begin;
\ir ../helpers.psql
select plan(17);

select tests.account('pro') as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset

-- A signal that breaks all rules at once; mending them in the order of the contract uncovers the
-- codes one after the other.
create temporary table rules (place serial, code text, mended text, good jsonb) on commit drop;
insert into rules (code, mended, good)
values
('unknown_field', 'colour', null),
('invalid_trader_id', 'trader_id', to_jsonb(:'foreign_trader'::text)),
('invalid_symbol', 'symbol', '"BTC"'),
('invalid_timeframe', 'timeframe', '"1h"'),
('invalid_generated_at', 'generated_at', '"2001-01-01T00:00:00Z"'),
('invalid_action', 'action', '"exit_long"'),
('invalid_confidence', 'confidence', '0'),
('invalid_price', 'price', '0'),
('invalid_stop_loss', 'stop_loss', '0'),
('invalid_take_profit', 'take_profit', '0'),
('invalid_valid_until', 'valid_until', 'null'),
('invalid_metadata', 'metadata', 'null'),
('stale', 'generated_at', to_jsonb(tests.iso(now() + interval '1 hour'))),
('in_future', 'generated_at', to_jsonb(tests.iso(now()))),
('unknown_trader', 'trader_id', to_jsonb(:'trader'::text));

create function tests.mended(until integer)
returns jsonb
language sql
as $$
  select jsonb_object_agg(mended, good) filter (where good is not null)
  from (
    select distinct on (mended) mended, good
    from (
      select 0 as place, key as mended, value as good
      from jsonb_each('{
        "colour": 1, "trader_id": 1, "symbol": 1, "timeframe": 1, "generated_at": 1, "action": 1,
        "confidence": "1", "price": "1", "stop_loss": "1", "take_profit": "1", "valid_until": 1,
        "metadata": 1}')
      union all
      select place, mended, good from rules where place < mended.until
    ) as step
    order by mended, place desc
  ) as latest
$$;

select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(tests.mended(place)))),
  array['0 ' || code], code || ' comes before all that follow')
from rules
order by place;

select is(
  tests.ingest(:'alice', jsonb_build_array(tests.mended(16))) ->> 'accepted', '1',
  'with all rules mended the signal is stored');
select is(
  tests.refused(tests.ingest(:'alice', jsonb_build_array(
    tests.mended(16) || '{"price": "x"}', tests.mended(16)))),
  array['0 invalid_price', '1 duplicate'], 'an invalid copy does not hide the stored one');

select * from finish();
rollback;
