begin;
\ir ../helpers.psql
select plan(9);
set local timezone = 'UTC';
select tests.pause_jobs() \g /dev/null

select tests.set_clock('2027-06-15T12:00:00Z') \g /dev/null
select private.ensure_partitions(
  'private.segments_' || tier, '2027-01-01T00:00:00Z', '2027-06-01T00:00:00Z')
from private.tiers \g /dev/null
select private.ensure_partitions(
  'private.signal_events', '2027-01-01T00:00:00Z', '2027-06-01T00:00:00Z') \g /dev/null
set local search_path = public, extensions;
update private.retention set keep = '30 days' where data = 'signals' and tier = 'free';
update private.retention set keep = '90 days' where data = 'signals' and tier = 'pro';

-- A segment of an account, under the tier that it has now; what is in it does not matter here.
create function tests.segment(account_id uuid, at timestamptz)
returns void
language plpgsql
as $$
declare
  v_account private.accounts;
begin
  select account.* into v_account from private.accounts as account
  where account.account_id = segment.account_id;
  execute (
    select format('insert into private.segments (%s) values (%s)',
      string_agg(quote_ident(attname), ', '),
      string_agg(
        case
          when attname = 'account_no' then v_account.account_no::text
          when attname = 'tier' then quote_literal(v_account.tier)
          when atttypid = 'timestamptz'::regtype then quote_literal(segment.at)
          when typcategory = 'A' then '''{}'''
          when typcategory = 'B' then 'false'
          else '1'
        end, ', '))
    from pg_attribute
    inner join pg_type on pg_type.oid = atttypid
    where attrelid = 'private.segments'::regclass and attnum > 0 and attnotnull
      and attidentity = '' and not attisdropped);
end
$$;
create function tests.months(account_id uuid)
returns text
language sql
as $$
  select string_agg(to_char(first_generated_at, 'MM') || segment.tier, ' '
    order by first_generated_at)
  from private.segments as segment
  inner join private.accounts using (account_no)
  where accounts.account_id = months.account_id
$$;
create function tests.retain()
returns integer
language plpgsql
as $$
declare
  v_steps integer := 0;
begin
  while private.retention_step() > 0 loop
    v_steps := v_steps + 1;
  end loop;
  perform set_config('search_path', 'public, extensions', true);
  return v_steps;
end
$$;

select tests.account('free') as freda, tests.account('pro') as paul, tests.account('elite') as ella,
  tests.account('free') as rose \gset
select tests.segment(account, at)
from unnest(array[:'freda', :'paul', :'ella', :'rose']::uuid[]) as account,
  generate_series(
    timestamptz '2027-01-10T00:00:00Z', '2027-05-20T00:00:00Z', '1 month') as at
\g /dev/null
-- More than fit in one step, of an account that rises before they are dropped.
select tests.segment(:'rose', '2027-02-10T00:00:00Z') from generate_series(1, 250) \g /dev/null
select private.set_account_tier(:'rose', 'pro') \g /dev/null

-- 5 months of segments and more of rose: 3 of them, 251 + 2 segments, are kept by pro.
select private.rehome_segments() as moved \gset
set local search_path = public, extensions;
select ok(:moved between 1 and 100, 'a step moves at most 100 segments');
select tests.retain() \g /dev/null
select is(tests.months(:'freda'), '05free', 'free keeps 30 days, to the month');
select is(tests.months(:'paul'), '03pro 04pro 05pro', 'pro keeps 90 days');
select is(
  tests.months(:'ella'), '01elite 02elite 03elite 04elite 05elite', 'elite keeps for ever');
select is(
  tests.months(:'rose'), '03pro 04pro 05free',
  'whoever rose to pro has what pro keeps, also of the time before');

-- What rose to elite is past for pro already, and never for elite.
select private.set_account_tier(:'paul', 'elite') \g /dev/null
select tests.set_clock('2027-09-15T12:00:00Z') \g /dev/null
select tests.retain() \g /dev/null
select is(
  tests.months(:'paul'), '03elite 04elite 05elite', 'nothing is lost by rising once more');
select is(tests.months(:'rose'), null, 'what is past for the present tier goes');
select ok(
  exists (
    select from private.partitions
    where parent = 'private.signal_events' and starts = '2027-01-01T00:00:00Z'),
  'events stay as long as one tier keeps signals');
update private.retention set keep = '90 days' where data = 'signals' and tier = 'elite';
select tests.retain() \g /dev/null
select is(
  (select min(starts) from private.partitions where parent = 'private.signal_events'),
  '2027-06-01T00:00:00Z'::timestamptz, 'and go with the signals');

select * from finish();
rollback;
