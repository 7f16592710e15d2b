begin;
\ir ../helpers.psql
select plan(4);

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select tests.ingest(:'alice', tests.signals(:'trader', 1)) ->> 'accepted' as stored \gset

-- One good row, changed in one column each time: what no function may ever store.
select is_empty(
  $$
    select constraint_name
    from information_schema.table_constraints
    where table_schema = 'private' and table_name = 'signals' and constraint_type = 'CHECK'
      and constraint_name not like '%_not_null'
      and constraint_name not in ('seq_is_positive', 'confidence_is_between_0_and_1',
        'timeframe_is_a_position', 'action_is_a_position', 'valid_until_is_after_generated_at')
  $$,
  'these are all constraints of signals');

create function tests.broken(changes jsonb)
returns text
language plpgsql
as $$
declare
  v_constraint text;
begin
  insert into private.signals
  select (jsonb_populate_record(signal, '{"symbol": "OTHER"}' || broken.changes)).*
  from private.signals as signal
  where account_no = (
    select account_no from private.accounts
    where account_id = current_setting('tests.alice')::uuid);
  return 'stored';
exception
  when check_violation then
    get stacked diagnostics v_constraint = constraint_name;
    return v_constraint;
end
$$;
select set_config('tests.alice', :'alice', true) \g /dev/null

select is(
  array[
    tests.broken('{"seq": 0}'), tests.broken('{"confidence": 1.1}'),
    tests.broken('{"confidence": -0.1}'), tests.broken('{"timeframe": 0}'),
    tests.broken('{"action": 0}'), tests.broken('{"valid_until": "2001-01-01T00:00:00Z"}')],
  array['seq_is_positive', 'confidence_is_between_0_and_1', 'confidence_is_between_0_and_1',
    'timeframe_is_a_position', 'action_is_a_position', 'valid_until_is_after_generated_at'],
  'each refuses what its name says');
select is(tests.broken('{}'), 'stored', 'and lets the rest in');
select is_empty(
  $$
    select child.inhrelid::regclass, parent.conname
    from pg_inherits as child
    cross join pg_constraint as parent
    where child.inhparent = 'private.signals'::regclass
      and parent.conrelid = 'private.signals'::regclass
      and not exists (
        select from pg_constraint as own
        where own.conrelid = child.inhrelid and own.contype = parent.contype
          and pg_get_constraintdef(own.oid) = pg_get_constraintdef(parent.oid))
  $$,
  'every partition has them');

select * from finish();
rollback;
