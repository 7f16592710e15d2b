begin;
\ir ../helpers.psql
select plan(12);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset

create function tests.batch_refusal(signals text, request_id uuid default gen_random_uuid())
returns text
language sql
as $$
  select tests.refusal(current_setting('tests.alice')::uuid, format(
    'select public.ingest_signals(%L, %L)', batch_refusal.request_id, batch_refusal.signals))
$$;
select set_config('tests.alice', :'alice', true) is not null as told \gset

select is(
  tests.ingest(:'alice', '[]') - 'request_id',
  '{"accepted": 0, "duplicate": 0, "rejected": 0, "first_seq": null, "last_seq": null,
    "items": []}', 'an empty batch is allowed');
select is(
  tests.ingest(:'alice', tests.signals(:'trader', 5000)) ->> 'accepted', '5000',
  '5,000 signals are one batch');
select is(
  tests.batch_refusal(tests.signals(:'trader', 5001)::text), 'PT413 batch_too_large',
  '5,001 are too many');
select is(
  tests.batch_refusal((select jsonb_agg(1)::text from generate_series(1, 5001))),
  'PT413 batch_too_large', 'whatever they are');
select is(
  tests.batch_refusal(jsonb_build_array(repeat('x', 1048576 - 100))::text), 'no error',
  '1 MB of text is one batch');
select is(
  tests.batch_refusal(jsonb_build_array(jsonb_build_array(repeat('x', 2 * 1048576)))::text),
  'PT413 batch_too_large', 'far more is too large');

select is(tests.batch_refusal(signals), 'PT400 invalid_request', why)
from (values
  (null, 'a batch without signals is refused'),
  ('null', 'so is null'),
  ('{}', 'or an object'),
  ('"[]"', 'or text')
) as attempt (signals, why);
select is(
  tests.batch_refusal('[]', null), 'PT400 invalid_request', 'a batch without a request_id, too');
select is(
  (select last_seq from private.accounts where account_id = :'alice'), 5000::bigint,
  'what was refused has stored nothing');

select * from finish();
rollback;
