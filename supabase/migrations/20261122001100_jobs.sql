-- What runs by itself: the only migration that names pg_cron.
-- Each job calls one function that is safe to run twice and at once.
-- Must never break: a job is scheduled by name, so running this again changes it in place.

select cron.schedule(
  'signals-partitions', '7 * * * *', 'select private.maintain_partitions()'
);
