-- Ingest reads packed_until under the lock of the account, and then stores by the table alone what is
-- later: were both done in one transaction, a duplicate could come in between and be stored.
begin;
\ir ../helpers.psql
\ir packing.psql
select plan(3);

select date_trunc('day', now(), 'utc') - interval '2 days' as day \gset
select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals_at(
  :'trader', array[:'day'::timestamptz, :'day'::timestamptz + interval '1 hour']
)) ->> 'accepted' as stored \gset

-- Takes steps until one announces the account, or moves signals of it.
create function tests.steps_until_announced(account_id uuid)
returns bigint
language plpgsql
as $$
begin
  for v_number in 1..1000 loop
    perform private.pack_step();
    if exists (
      select from private.accounts as account
      where account.account_id = steps_until_announced.account_id
        and account.packed_until > '-infinity'
    ) then
      return (
        select count(*) from private.signals as signal
        where signal.account_no = tests.account_no(steps_until_announced.account_id));
    end if;
  end loop;
end
$$;

select is(
  tests.steps_until_announced(:'alice'), 2::bigint,
  'the step that raises packed_until leaves the signals in the table');
select is(
  (
    select account.packed_until from private.accounts as account
    where account.account_id = :'alice'),
  :'day'::timestamptz + interval '1 day' - interval '1 microsecond',
  'it raises it to the end of the day');

select tests.run('pack_step') \g /dev/null
select is_empty(
  format('select from private.signals where account_no = %s', tests.account_no(:'alice')),
  'later steps move them');

select * from finish();
rollback;
