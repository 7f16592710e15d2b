begin;
\ir ../helpers.psql
\ir ../packing/packing.psql
select plan(6);
set local timezone = 'UTC';
select tests.pause_jobs() \g /dev/null

-- What is found after changes by whoever owns the tables; they are taken back.
create function tests.found_after(account_id uuid, changes text)
returns text
language plpgsql
as $$
begin
  alter table audit.links disable trigger user;
  execute found_after.changes;
  raise exception using errcode = 'ZZ000', message = concat_ws(' ',
    private.verify_audit(found_after.account_id, 1, null) #>> '{broken,link_no}',
    private.verify_audit(found_after.account_id, 1, null) #>> '{broken,problem}');
exception
  when sqlstate 'ZZ000' then return sqlerrm;
end
$$;

-- Two batches in January and one in March, of which retention keeps March.
select private.ensure_partitions(parent, '2027-01-10T00:00:00Z', '2027-03-10T00:00:00Z')
from unnest(array['private.signals', 'private.batches', 'audit.links']) as parent \g /dev/null
select tests.set_clock('2027-01-10T12:00:00Z') \g /dev/null
select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select count(tests.ingest(:'alice', tests.signals(:'trader', 2, number * 2 + 1))) as batches
from generate_series(0, 1) as number \gset
select tests.set_clock('2027-03-10T12:00:00Z') \g /dev/null
select tests.ingest(:'alice', tests.signals(:'trader', 2)) ->> 'accepted' as stored \gset
select tests.run('pack_step') > 0 as packed \gset
update private.retention set keep = '30 days' where data = 'signals';
select tests.run('retention_step') > 0 as dropped \gset
set local search_path = public, extensions;

select is(
  tests.ask(:'alice', 'select count(*) from public.signals'), '2', 'retention dropped January');
select is(
  tests.ask(:'alice', 'select public.verify_audit()') - 'account_id',
  '{"from_link": 1, "to_link": 3, "next_link": null, "checked_links": 3, "dropped_links": 2,
    "intact": true, "broken": null}',
  'the chain is whole, and says of how many links signals are gone');

create temporary table mine as
select account_no from private.accounts where account_id = :'alice';
select is(tests.found_after(:'alice', changes), found, why)
from (
  values
  ('delete from private.signals where account_no = (table mine) and seq = 6',
    '3 content_changed', 'a signal that should still be there is missed'),
  ($$update audit.links set digest = sha256('') where account_no = (table mine) and link_no = 1$$,
    '1 link_altered', 'a link without its signals is still checked by its hash'),
  ('delete from audit.links where account_no = (table mine) and link_no = 2',
    '2 link_missing', 'and missed when it is gone'),
  ($$update private.retention set keep = null where data = 'signals'$$,
    '1 content_changed', 'where all is kept, nothing has an excuse')
) as attempt (changes, found, why);

select * from finish();
rollback;
