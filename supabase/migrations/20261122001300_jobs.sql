-- What runs by itself: the only migration that names pg_cron.
-- Each line of private.jobs is scheduled as one statement, which is safe to run at once.
-- Must never break: a job is scheduled by name, so running this again changes it in place.

create function private.cron_log_step()
returns bigint
language sql
set search_path = ''
as $$
  -- pg_cron never forgets a run by itself.
  with forgotten as (
    delete from cron.job_run_details as run
    where run.runid in (
      select old.runid from cron.job_run_details as old
      where old.start_time < clock_timestamp() - interval '3 days'
      order by old.runid
      limit 10000)
    returning run.runid
  )
  select count(*) from forgotten
$$;

comment on function private.cron_log_step is
'Deletes 10,000 of the runs that pg_cron has written down more than 3 days ago.';

insert into private.jobs (job, schedule, late_after)
values ('cron_log', '1-59/10 * * * *', '1 day');

select cron.schedule('signals-' || job, schedule, private.job_command(job))
from private.jobs
order by job;
