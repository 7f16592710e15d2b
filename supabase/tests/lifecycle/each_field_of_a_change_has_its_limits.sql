begin;
\ir ../helpers.psql
select plan(65);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice') as trader, tests.trader(:'bob') as foreign_trader \gset
select tests.signal(:'trader') as signal, tests.signal(:'foreign_trader') as foreign_signal \gset
select tests.ingest(:'alice', jsonb_build_array(:'signal'::jsonb)) ->> 'accepted' as stored \gset
select tests.ingest(:'bob', jsonb_build_array(:'foreign_signal'::jsonb)) ->> 'accepted' as told \gset

-- The code that a change of the signal gets with these fields in place of its own.
create function tests.code_of(account_id uuid, signal jsonb, status text, fields jsonb)
returns text
language plpgsql
as $$
declare
  v_verdict jsonb;
begin
  v_verdict := tests.advance(code_of.account_id, jsonb_build_array(
    tests.change(code_of.signal, code_of.status, code_of.fields)));
  if v_verdict ->> 'accepted' = '1' then
    -- Nothing stays, so that each case finds the signal as it was.
    raise exception 'accepted' using errcode = 'UA000';
  end if;
  return v_verdict #>> '{items,0,code}';
exception
  when sqlstate 'UA000' then return 'accepted';
end
$$;

select is(
  tests.refused(tests.advance(:'alice', '[null, 1, "a", [], {}, {"status": "analyzed", "side": 1}]')),
  array['0 invalid_change', '1 invalid_change', '2 invalid_change', '3 invalid_change',
    '4 invalid_trader_id', '5 invalid_change'],
  'a change is an object with the fields of a change');

select is(
  tests.code_of(:'alice', :'signal', status, fields), code, concat_ws(' ', status, fields, code))
from (values
  ('analyzed', '{}'::jsonb, 'accepted'),
  ('analyzed', '{"trader_id": "1"}', 'invalid_trader_id'),
  ('analyzed', '{"trader_id": null}', 'invalid_trader_id'),
  ('analyzed', '{"trader_id": "00000000-0000-4000-8000-000000000000"}', 'unknown_signal'),
  ('analyzed', '{"symbol": ""}', 'invalid_symbol'),
  ('analyzed', '{"symbol": "BTC USD"}', 'invalid_symbol'),
  ('analyzed', '{"symbol": 1}', 'invalid_symbol'),
  ('analyzed', '{"symbol": "ETH/USD"}', 'unknown_signal'),
  ('analyzed', '{"timeframe": "2m"}', 'invalid_timeframe'),
  ('analyzed', '{"timeframe": "5m"}', 'unknown_signal'),
  ('analyzed', '{"generated_at": "yesterday"}', 'invalid_generated_at'),
  ('analyzed', '{"generated_at": "2026-02-30T00:00:00Z"}', 'invalid_generated_at'),
  ('analyzed', '{"generated_at": 1}', 'invalid_generated_at'),
  ('analyzed', '{"generated_at": "2026-01-01T00:00:00Z"}', 'unknown_signal'),
  ('analyzed', '{"status": "done"}', 'invalid_status'),
  ('analyzed', '{"status": null}', 'invalid_status'),
  ('analyzed', '{"occurred_at": null}', 'accepted'),
  ('analyzed', '{"occurred_at": "now"}', 'invalid_occurred_at'),
  ('analyzed', '{"occurred_at": "2026-01-01T00:00:00Z"}', 'invalid_occurred_at'),
  ('analyzed', '{"occurred_at": "2999-01-01T00:00:00Z"}', 'invalid_occurred_at'),
  ('analyzed', '{"entry_price": 1}', 'invalid_entry_price'),
  ('executed', '{"entry_price": 1}', 'accepted'),
  ('executed', '{"entry_price": null}', 'accepted'),
  ('executed', '{"entry_price": -1e15}', 'accepted'),
  ('executed', '{"entry_price": 1.1e15}', 'invalid_entry_price'),
  ('executed', '{"entry_price": 1e400}', 'invalid_entry_price'),
  ('executed', '{"entry_price": "1"}', 'invalid_entry_price'),
  ('executed', '{"exit_price": 1}', 'invalid_exit_price'),
  ('executed', '{"close_reason": "manual"}', 'invalid_close_reason'),
  ('executed', '{"return": 0.1}', 'invalid_return'),
  ('executed', '{"fees": 0.1}', 'invalid_fees'),
  ('cancelled', '{"reason": "no liquidity"}', 'accepted'),
  ('cancelled', '{"reason": ""}', 'invalid_reason'),
  ('cancelled', '{"reason": 5}', 'invalid_reason'),
  ('cancelled', '{"reason": "two\nlines"}', 'invalid_reason'),
  ('cancelled', jsonb_build_object('reason', repeat('é', 200)), 'accepted'),
  ('cancelled', jsonb_build_object('reason', repeat('é', 201)), 'invalid_reason')
) as tried (status, fields, code);

select tests.advance(:'alice', jsonb_build_array(tests.change(:'signal', 'executed')))
  ->> 'accepted' as executed \gset
select is(
  tests.code_of(:'alice', :'signal', 'closed', fields), code, concat_ws(' ', 'closed', fields, code))
from (values
  ('{}'::jsonb, 'accepted'),
  ('{"exit_price": null}', 'invalid_exit_price'),
  ('{"exit_price": "1"}', 'invalid_exit_price'),
  ('{"exit_price": 1.1e15}', 'invalid_exit_price'),
  ('{"close_reason": null}', 'invalid_close_reason'),
  ('{"close_reason": "bored"}', 'invalid_close_reason'),
  ('{"return": -1.5}', 'accepted'),
  ('{"return": 1.1e6}', 'invalid_return'),
  ('{"return": "5 %"}', 'invalid_return'),
  ('{"fees": -0.5}', 'accepted'),
  ('{"fees": 1.1e15}', 'invalid_fees'),
  ('{"entry_price": 1}', 'invalid_entry_price')
) as tried (fields, code);
select is(
  (select array_agg(tests.code_of(
    :'alice', :'signal', 'closed', jsonb_build_object('close_reason', word)))
    from unnest(private.close_reasons()) as word),
  array_fill('accepted'::text, array[8]), 'each reason to close is taken');

-- The window of occurred_at.
select is(
  tests.code_of(:'alice', :'signal', 'closed', jsonb_build_object(
    'occurred_at', tests.iso(private.clock() + distance))), code, 'occurred_at ' || distance)
from (values
  (interval '1 minute', 'accepted'),
  (interval '1 minute 1 microsecond', 'invalid_occurred_at'),
  (interval '-1 minute', 'accepted'),
  (interval '-1 minute -1 microsecond', 'invalid_occurred_at')
) as tried (distance, code);

-- Other accounts.
select is(
  tests.code_of(:'alice', :'foreign_signal', 'analyzed', '{}'), 'unknown_signal',
  'the signal of another account is unknown');
select is(
  tests.code_of(:'bob', :'signal', 'analyzed', '{}'), 'unknown_signal', 'and the other way round');
select is(
  tests.code_of(gen_random_uuid(), :'signal', 'analyzed', '{}'), 'unknown_signal',
  'an account that is new has no signal');
select is(
  tests.code_of(:'bob', :'foreign_signal', 'analyzed', '{}'), 'accepted', 'one''s own is known');

select tests.ask(:'bob', format('select public.archive_trader(%L)', :'foreign_trader')) as gone \gset
select is(
  tests.code_of(:'bob', :'foreign_signal', 'analyzed', '{}'), 'accepted',
  'also when its trader was archived');

-- The request itself.
select is(
  tests.refusal(:'alice', format('select public.advance_signals(%s, %s)', request_id, changes)),
  refusal, why)
from (values
  ('null', '''[]''', 'PT400 invalid_request', 'without a request_id'),
  ('gen_random_uuid()', 'null', 'PT400 invalid_request', 'without changes'),
  ('gen_random_uuid()', '''{}''', 'PT400 invalid_request', 'with changes that are no list'),
  ('gen_random_uuid()', '(select jsonb_agg(1) from generate_series(1, 5001))',
    'PT413 batch_too_large', 'with more than 5000'),
  ('gen_random_uuid()', 'jsonb_build_array(repeat(''x'', 2097152))',
    'PT413 batch_too_large', 'with too many bytes')
) as tried (request_id, changes, refusal, why);

select * from finish();
rollback;
