begin;
\ir ../helpers.psql
create extension if not exists plpgsql_check with schema extensions;
select plan(3);

create temporary view ours as
select routine.oid
from pg_proc as routine
inner join pg_language as language on language.oid = routine.prolang
where language.lanname = 'plpgsql'
  and routine.pronamespace in ('public'::regnamespace, 'private'::regnamespace);

select cmp_ok((select count(*)::integer from ours), '>=', 15, 'our functions are looked at');
select is_empty(
  $$
    select ours.oid::regprocedure, finding.lineno, finding.level, finding.message
    from ours
    left join pg_trigger as trigger on trigger.tgfoid = ours.oid and not trigger.tgisinternal
      and trigger.tgparentid = 0
    cross join lateral extensions.plpgsql_check_function_tb(
      ours.oid, coalesce(trigger.tgrelid, 0), performance_warnings => false,
      extra_warnings => true, security_warnings => true) as finding
  $$,
  'it reports no error and no warning');

create function private.planted()
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_unused integer;
begin
  return (select no_such_column from private.accounts limit 1);
end
$$;
select isnt_empty(
  $$select from extensions.plpgsql_check_function_tb('private.planted()'::regprocedure)$$,
  'and it would report a mistake');

select * from finish();
rollback;
