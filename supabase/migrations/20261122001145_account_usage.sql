-- account_usage: where an account stands with what its tier allows and what it has stored.
-- Packed signals are summed up from the columns of their segments, hot ones are counted: both up to a
-- bound, so that the answer takes as long for the largest account as for a large one.
-- Must never break: an account is told about itself only.

create function private.hot_usage(account_no integer)
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select json_build_object(
      'signals', least(counted.signals, 100000),
      'more', counted.signals > 100000,
      'bytes', (least(counted.signals, 100000) * row_size.bytes)::bigint)
    from (
      select count(*) as signals
      from (
        select
        from private.signals as signal
        where signal.account_no = hot_usage.account_no
        limit 100001
      ) as each
    ) as counted
    cross join (
      -- What a row takes on average, indexes included; 200 until the tables have been analyzed.
      select coalesce(sum(pg_total_relation_size(class.oid)) / sum(class.reltuples), 200) as bytes
      from pg_inherits as inheritance
      inner join pg_class as class on class.oid = inheritance.inhrelid
      where inheritance.inhparent = 'private.signals'::regclass and class.reltuples > 0
    ) as row_size
  );
end
$$;

comment on function private.hot_usage is
'How many signals of the account are not packed, counted up to 100,000 (more tells that there are
more), and about how many bytes these take.';

create function private.packed_usage(
  account_no integer,
  from_time timestamptz,
  to_time timestamptz
)
returns json
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select json_build_object(
      'signals', coalesce(sum(counted.signals), 0),
      'more', count(*) > 10000,
      'bytes', coalesce(sum(counted.bytes), 0))
    from (
      select
        segment.signals,
        -- The row itself and its index entries.
        300
        + pg_column_size(segment.generated_at_values) + pg_column_size(segment.seq_offsets)
        + pg_column_size(segment.trader_no_values) + pg_column_size(segment.symbol_positions)
        + pg_column_size(segment.timeframe_values) + pg_column_size(segment.action_values)
        + pg_column_size(segment.confidence_values) + pg_column_size(segment.price_values)
        + coalesce(pg_column_size(segment.stop_loss_values), 0)
        + coalesce(pg_column_size(segment.take_profit_values), 0)
        + coalesce(pg_column_size(segment.valid_for_values), 0)
        + coalesce(pg_column_size(segment.metadata_values), 0) as bytes
      from private.segments as segment
      where segment.account_no = packed_usage.account_no
        and segment.last_generated_at >= packed_usage.from_time
        and segment.last_generated_at < packed_usage.to_time
        -- A segment lies in one month: this leaves out the partitions of the months before.
        and segment.first_generated_at >= date_trunc('month', packed_usage.from_time, 'utc')
      limit 10001
    ) as counted
  );
end
$$;

comment on function private.packed_usage is
'How many packed signals the account has in segments that end in this time, and about how many bytes
they take: the sizes of the compressed arrays, which are not read for it. At most 10,000 segments
and one are summed up, some 20 to 40 million signals; more tells that there may be others.';

create function private.oldest_packed(account_no integer)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select min(segment.first_generated_at)
    from private.segments as segment
    where segment.account_no = oldest_packed.account_no
      -- A segment lies in one month, so the oldest signal is in that of the segment that ends first.
      and segment.last_generated_at < (
        select date_trunc('month', min(ending.last_generated_at), 'utc') + interval '32 days'
        from private.segments as ending
        where ending.account_no = oldest_packed.account_no)
  );
end
$$;

comment on function private.oldest_packed is
'When the oldest packed signal of the account was generated; only segments of its month are looked at.';

create function private.account_usage()
returns json
language plpgsql
stable
security definer
set search_path = ''
-- One plan for all, also in the functions above: to plan a year of partitions anew takes ten times as
-- long as to read them.
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_now timestamptz := private.clock();
begin
  return (
    select json_build_object(
      'account_id', v_account_id,
      'tier', tier.tier,
      'day', json_build_object(
        'used', case account.day_started
          when (v_now at time zone 'utc')::date then account.day_used else 0 end,
        'limit', tier.signals_per_day),
      'minute', json_build_object(
        'used', case account.minute_started
          when date_trunc('minute', v_now) then account.minute_used else 0 end,
        'limit', tier.signals_per_minute),
      'traders', json_build_object(
        'used', (
          select count(*) from private.traders as trader
          where trader.account_no = account.account_no and trader.archived_at is null),
        'limit', tier.traders),
      'hot', private.hot_usage(account.account_no),
      'hot_limit', tier.hot_signals,
      'warm', private.packed_usage(
        account.account_no, v_now - interval '7 days', 'infinity'),
      'warm_limit', tier.warm_signals,
      'cold', private.packed_usage(
        account.account_no, '-infinity', v_now - interval '7 days'),
      'oldest_signal_at', least(
        (
          select min(signal.generated_at) from private.signals as signal
          where signal.account_no = account.account_no),
        private.oldest_packed(account.account_no)),
      'kept_days', (
        select json_object_agg(
          retention.data, extract(epoch from retention.keep)::bigint / 86400 order by retention.data)
        from private.retention as retention
        where retention.tier = tier.tier and retention.data <> 'ledger'))
    from private.tiers as tier
    left join private.accounts as account on account.account_id = v_account_id
    where tier.tier = coalesce(account.tier, 'free')
  );
end
$$;

comment on function private.account_usage is 'Body of public.account_usage.';

create function public.account_usage()
returns json
language sql
stable
set search_path = ''
as 'select private.account_usage()';

comment on function public.account_usage is
'Where the caller''s account stands: its tier, what of each allowance is used, how many signals it
has in hot, warm and cold storage and about how many bytes (more: at least so many), its oldest signal,
and for how many days each kind of data is kept (null: for ever).';

grant execute on function private.account_usage to authenticated;
grant execute on function public.account_usage to authenticated;
