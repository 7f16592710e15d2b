begin;
\ir ../helpers.psql
select plan(27);

select tests.account() as alice, tests.account() as bob \gset
select tests.trader(:'alice', 'loud', true) as loud, tests.trader(:'alice', 'quiet') as quiet,
  tests.trader(:'bob', 'loud', true) as foreign_loud \gset

-- As the Realtime server asks when a client joins: a probe row, the topic set, the caller's claims.
create function tests.hears(
  account_id uuid,
  topic text,
  scope text default null,
  as_role text default 'authenticated',
  extension text default 'broadcast',
  api_key_id uuid default null
)
returns boolean
language plpgsql
as $$
declare
  v_heard boolean;
begin
  insert into realtime.messages (topic, extension, payload, event, private)
  values (hears.topic, hears.extension, '{}', 'probe', true);
  perform set_config('realtime.topic', hears.topic, true);
  v_heard := tests.ask(
    hears.account_id,
    format(
      'select to_jsonb(exists (select from realtime.messages where topic = %L and extension = %L))',
      hears.topic, hears.extension),
    hears.scope, hears.as_role, hears.api_key_id);
  return v_heard;
end
$$;

select 'account:' || :'alice' || ':signals' as a_topic,
  'account:' || :'bob' || ':signals' as b_topic,
  'trader:' || :'loud' || ':signals' as loud_topic,
  'trader:' || :'quiet' || ':signals' as quiet_topic,
  'trader:' || :'foreign_loud' || ':signals' as foreign_topic \gset

select ok(tests.hears(:'alice', :'a_topic'), 'alice hears her account');
select ok(tests.hears(:'bob', :'b_topic'), 'bob hears his account');
select ok(not tests.hears(:'alice', :'b_topic'), 'alice does not hear bob''s account');
select ok(not tests.hears(:'bob', :'a_topic'), 'bob does not hear alice''s account');
select ok(tests.hears(:'alice', :'loud_topic'), 'alice hears her trader with a channel');
select ok(not tests.hears(:'alice', :'quiet_topic'), 'but not her trader without one');
select ok(not tests.hears(:'alice', :'foreign_topic'), 'nor bob''s trader');
select ok(not tests.hears(:'bob', :'loud_topic'), 'bob does not hear alice''s trader');
select ok(
  not tests.hears(:'alice', :'a_topic' || 's'), 'a topic that only begins like hers is not hers');
select ok(not tests.hears(:'alice', 'anything'), 'no other topic can be heard');
select ok(not tests.hears(null, 'account::signals'), 'nor a topic without an account');
select ok(
  not tests.hears(:'alice', :'a_topic', null, 'authenticated', 'presence'),
  'presence is not offered');

select ok(tests.hears(:'alice', :'a_topic', 'signals:read'), 'signals:read lets her hear');
select ok(tests.hears(:'alice', :'loud_topic', 'signals:read'), 'and hear her trader');
select ok(
  not tests.hears(:'alice', :'a_topic', 'signals:write'), 'signals:write alone does not');
select ok(
  not tests.hears(:'alice', :'loud_topic', 'signals:write'), 'nor for her trader');
select ok(not tests.hears(null, :'a_topic', null, 'anon'), 'anon hears nothing');

-- A key's token hears what its scope says, and nothing once the key is dead.
select tests.sign_up(:'alice') \g /dev/null
select tests.ask(:'alice', 'select public.create_api_key(''ear'', ''{signals:read}'')') ->> 'key_id'
  as key_id \gset
select ok(tests.hears(:'alice', topic, 'signals:read', api_key_id => :'key_id'), 'a key hears')
from unnest(array[:'a_topic', :'loud_topic']) as topic;
select tests.ask(:'alice', format('select public.revoke_api_key(%L)', :'key_id')) ->> 'name'
  as revoked \gset
select ok(
  not tests.hears(:'alice', topic, 'signals:read', api_key_id => :'key_id'),
  'a revoked key does not')
from unnest(array[:'a_topic', :'loud_topic']) as topic;

select is(
  tests.refusal(role_owner, format(
    'insert into realtime.messages (topic, extension, payload, event, private) '
    'values (%L, ''broadcast'', ''{}'', ''signals_ingested'', true)', :'a_topic'), null, role),
  '42501', role || ' cannot send to the topic')
from (values ('authenticated', :'alice'::uuid), ('anon', null)) as sender (role, role_owner);

alter policy members_hear_own_account on realtime.messages using (true);
select ok(
  tests.hears(:'alice', :'b_topic'), 'relaxed, members_hear_own_account leaks');
drop policy members_hear_own_account on realtime.messages;
select ok(not tests.hears(:'alice', :'a_topic'), 'without it, alice does not hear her account');
alter policy members_hear_own_traders on realtime.messages using (true);
select ok(
  tests.hears(:'alice', :'foreign_topic'), 'relaxed, members_hear_own_traders leaks');
drop policy members_hear_own_traders on realtime.messages;
select ok(not tests.hears(:'alice', :'loud_topic'), 'without it, alice does not hear her trader');

select * from finish();
rollback;
