-- The extensions that the schema stands on.
-- Versions are not pinned: hosted Supabase ignores a pinned version.
-- Must never break: this file can run on a project where they are already installed.

create schema if not exists partman;
create extension if not exists pg_partman with schema partman;
create extension if not exists pg_cron;
