-- The form of a timestamp is the pattern of contract.json and a date that exists. Whether the time
-- is within the window is another rule: here all times are long ago, so the good ones are stale.
begin;
\ir ../helpers.psql
select plan(3);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset

create temporary table sent (index serial, value jsonb, good boolean) on commit drop;
insert into sent (value, good)
select to_jsonb(text), good
from (values
  ('2024-02-29T00:00:00Z', true),
  ('2024-12-31T23:59:59Z', true),
  ('2024-01-01T00:00:00.1Z', true),
  ('2024-01-01T00:00:00.12Z', true),
  ('2024-01-01T00:00:00.123Z', true),
  ('2024-01-01T00:00:00.1234Z', true),
  ('2024-01-01T00:00:00.12345Z', true),
  ('2024-01-01T00:00:00.123456Z', true),
  ('2024-01-01T00:00:00+00:00', true),
  ('2024-01-01T00:00:00-00:00', true),
  ('2024-01-01T00:00:00+05:30', true),
  ('2024-01-01T00:00:00.5-12:59', true),
  ('2024-01-01T00:00:00+14:59', true),
  ('1000-01-01T00:00:00Z', true),
  ('2024-01-01T00:00:00.1234567Z', false),
  ('2024-01-01T00:00:00.Z', false),
  ('2024-01-01T00:00:00,5Z', false),
  ('2024-01-01T00:00:00', false),
  ('2024-01-01T00:00Z', false),
  ('2024-01-01', false),
  ('2024-01-01 00:00:00Z', false),
  ('2024-01-01t00:00:00Z', false),
  ('2024-01-01T00:00:00z', false),
  ('2024-01-01T00:00:00 Z', false),
  ('2024-01-01T00:00:00+0530', false),
  ('2024-01-01T00:00:00+05', false),
  ('2024-01-01T00:00:00+15:00', false),
  ('2024-01-01T00:00:00-15:00', false),
  ('2024-01-01T00:00:00+15:59', false),
  ('2024-01-01T00:00:00+16:00', false),
  ('2024-01-01T00:00:00+05:60', false),
  ('2023-02-29T00:00:00Z', false),
  ('1900-02-29T00:00:00Z', false),
  ('2024-04-31T00:00:00Z', false),
  ('2024-00-01T00:00:00Z', false),
  ('2024-13-01T00:00:00Z', false),
  ('2024-01-00T00:00:00Z', false),
  ('2024-01-32T00:00:00Z', false),
  ('2024-01-01T24:00:00Z', false),
  ('2024-01-01T23:60:00Z', false),
  ('2024-01-01T23:59:60Z', false),
  ('0999-12-31T00:00:00Z', false),
  ('0000-01-01T00:00:00Z', false),
  ('3000-01-01T00:00:00Z', false),
  ('9999-01-01T00:00:00Z', false),
  ('+2024-01-01T00:00:00Z', false),
  ('-2024-01-01T00:00:00Z', false),
  (' 2024-01-01T00:00:00Z', false),
  (e'2024-01-01T00:00:00Z\n', false),
  ('２０２４-01-01T00:00:00Z', false),
  ('20240101T000000Z', false),
  ('1704067200', false),
  ('now', false),
  ('today', false),
  ('infinity', false),
  ('-infinity', false),
  ('epoch', false),
  ('', false)
) as line (text, good);
insert into sent (value, good)
values ('1704067200', false), ('true', false), ('{}', false), ('null', false);

create function tests.judged(field text)
returns table (value jsonb, good boolean, code text)
language sql
as $$
  select sent.value, sent.good, item ->> 'code'
  from sent
  left join jsonb_array_elements(tests.ingest(current_setting('tests.alice')::uuid, (
    select jsonb_agg(
      tests.signal(current_setting('tests.trader')::uuid,
        '{"generated_at": "1000-01-01T00:00:00+14:59"}'
        || jsonb_build_object(judged.field, sent.value))
      order by sent.index)
    from sent)) -> 'items') as item on (item ->> 'index')::integer = sent.index - 1
$$;
select set_config('tests.alice', :'alice', true), set_config('tests.trader', :'trader', true)
\g /dev/null

select is_empty(
  $$
    select value, code from tests.judged('generated_at')
    where code <> case when good then 'stale' else 'invalid_generated_at' end
  $$,
  'generated_at has the documented form');
select is_empty(
  $$
    select value, code from tests.judged('valid_until')
    where code <> case when good or value = 'null' then 'stale' else 'invalid_valid_until' end
  $$,
  'valid_until has the same form, or is null');
select is(
  (select array_agg(distinct code order by code) from tests.judged('generated_at')),
  array['invalid_generated_at', 'stale'], 'each is refused for one of the two reasons');

select * from finish();
rollback;
