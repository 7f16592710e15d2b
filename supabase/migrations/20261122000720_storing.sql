-- Storing: the candidates of a batch become signals, a ledger row and an audit link.
-- All of it under the lock of the account, which gives seq its order and the quota its edge.
-- Must never break: signals, ledger, link and the account's row are written together or not at all.

create function private.opened_windows(account private.accounts)
returns private.accounts
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account private.accounts := opened_windows.account;
  v_now timestamptz := private.clock();
begin
  -- Only forward: a transaction that began before midnight may get the lock after one that began
  -- later, and must not give the new day's allowance back.
  if v_account.day_started < (v_now at time zone 'utc')::date then
    v_account.day_started := (v_now at time zone 'utc')::date;
    v_account.day_used := 0;
  end if;
  if v_account.minute_started < date_trunc('minute', v_now) then
    v_account.minute_started := date_trunc('minute', v_now);
    v_account.minute_used := 0;
  end if;
  return v_account;
end
$$;

comment on function private.opened_windows is
'The account with its counters at 0 where a new day (UTC) or minute has begun.';

create type private.summary as (
  signals bigint,
  refused bigint,
  first_seq bigint,
  last_seq bigint,
  first_generated_at timestamptz,
  last_generated_at timestamptz,
  last_valid_until timestamptz,
  digest bytea
);

comment on type private.summary is
'What the ledger and the audit chain tell of signals: how many, their spans and their digest; and how
many of them are refused already.';

create function private.summary_of(
  candidates private.candidate[],
  first_seq bigint
)
returns private.summary
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_summary private.summary;
begin
  -- In the order of the array, which is the order of seq.
  select
    count(*), count(each.code), summary_of.first_seq, summary_of.first_seq + count(*) - 1,
    min(each.generated_at), max(each.generated_at), max(each.valid_until),
    sha256(string_agg(record_send(row(
      summary_of.first_seq + each.index, each.trader_id, each.symbol,
      (private.timeframes())[each.timeframe], each.generated_at, (private.actions())[each.action],
      each.confidence, each.price, each.stop_loss, each.take_profit, each.valid_until,
      each.metadata::text)), ''))
  into v_summary
  from unnest(summary_of.candidates) as each;
  return v_summary;
end
$$;

comment on function private.summary_of is
'Counts, spans and digest of signals that have the seq first_seq + index, in that order. The digest is
over logical values, so it is the same wherever a signal is stored.';

create function private.insert_signals(
  account private.accounts,
  candidates private.candidate[]
)
returns void
language plpgsql
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  insert into private.signals (
    generated_at, seq, confidence, price, stop_loss, take_profit, valid_until,
    account_no, trader_no, timeframe, action, symbol, metadata
  )
  select
    each.generated_at, insert_signals.account.last_seq + 1 + each.index, each.confidence,
    each.price, each.stop_loss, each.take_profit, each.valid_until,
    insert_signals.account.account_no, each.trader_no, each.timeframe, each.action,
    each.symbol, each.metadata
  from unnest(insert_signals.candidates) as each;
end
$$;

comment on function private.insert_signals is
'Stores the candidates with the account''s next seq, in the order of their index from 0.';

create function private.all_inserted(
  account private.accounts,
  candidates private.candidate[]
)
returns boolean
language plpgsql
set search_path = ''
as $$
begin
  perform private.insert_signals(all_inserted.account, all_inserted.candidates);
  return true;
exception
  when unique_violation then return false;
end
$$;

comment on function private.all_inserted is
'Stores the candidates, or none of them and returns false when one is a duplicate of a signal that is
not packed.';

create type private.judgement as (
  accepted private.candidate [],
  refused jsonb
);

comment on type private.judgement is
'What of a batch may be stored, with index from 0 in the order of seq; and why the rest may not, as the
ledger keeps it.';

create function private.judge_signals(
  account private.accounts,
  candidates private.candidate[],
  day_left bigint,
  minute_left bigint
)
returns private.judgement
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  -- In the order of time; null when no candidate is so late that its duplicate may be packed.
  v_late timestamptz[] := (
    select array_agg(each.generated_at order by each.generated_at)
    from unnest(judge_signals.candidates) as each
    where each.code is null and each.generated_at <= judge_signals.account.packed_until);
  v_judgement private.judgement;
begin
  -- Table and segments are asked in one statement, whose snapshot has each signal in one of them:
  -- this needs no lock against the job that packs.
  with packed as (
    select
      each.generated_at, each.trader_no, segment.symbols[each.symbol_position] as symbol,
      each.timeframe
    from private.segments as segment
    cross join lateral unnest(
      segment.generated_at_values, segment.trader_no_values, segment.symbol_positions,
      segment.timeframe_values
    ) as each (generated_at, trader_no, symbol_position, timeframe)
    where segment.account_no = judge_signals.account.account_no
      and segment.last_generated_at >= v_late[1]
      and segment.first_generated_at <= v_late[cardinality(v_late)]
      -- A segment lies in one month: this leaves out the partitions of the months before.
      and segment.first_generated_at >= date_trunc('month', v_late[1], 'utc')
      -- Only segments that span the time of a late candidate are unpacked.
      and width_bucket(segment.last_generated_at, v_late)
        > width_bucket(segment.first_generated_at - interval '1 microsecond', v_late)
  ),
  candidate as materialized (
    select
      each.*,
      row_number() over (
        partition by each.code, each.generated_at, each.trader_no, each.symbol, each.timeframe
        order by each.index
      ) > 1 as is_repeat,
      exists (
        select from private.signals as stored
        where stored.account_no = judge_signals.account.account_no
          and stored.generated_at = each.generated_at
          and stored.trader_no = each.trader_no
          and stored.symbol = each.symbol
          and stored.timeframe = each.timeframe
      ) or each.generated_at <= judge_signals.account.packed_until and (
        each.generated_at, each.trader_no, each.symbol, each.timeframe
      ) in (
        select packed.generated_at, packed.trader_no, packed.symbol, packed.timeframe from packed
      ) as is_stored
    from unnest(judge_signals.candidates) as each
  ),
  numbered as (
    select
      candidate.*,
      count(*) filter (
        where candidate.code is null and not candidate.is_repeat and not candidate.is_stored
      ) over (order by candidate.index) as number
    from candidate
  ),
  counted as (
    -- A repeat shares the fate of the first: without an allowance for that, neither is stored.
    select
      numbered.*,
      min(numbered.number) over (
        partition by numbered.code, numbered.generated_at, numbered.trader_no, numbered.symbol,
          numbered.timeframe
      ) as first_number
    from numbered
  ),
  judged as (
    select
      counted.*,
      case
        when counted.code is not null then counted.code
        when counted.is_stored then 'duplicate'
        when counted.first_number > judge_signals.day_left then 'quota_exceeded'
        when counted.first_number > judge_signals.minute_left then 'rate_limited'
        when counted.is_repeat then 'duplicate'
      end as final_code
    from counted
  )
  select
    array_agg((
      judged.number - 1, judged.trader_no, judged.trader_id, judged.symbol, judged.timeframe,
      judged.generated_at, judged.action, judged.confidence, judged.price, judged.stop_loss,
      judged.take_profit, judged.valid_until, judged.metadata, null
    )::private.candidate order by judged.number) filter (where judged.final_code is null),
    jsonb_agg(jsonb_build_array(judged.index, judged.final_code) order by judged.index)
      filter (where judged.final_code is not null)
  into v_judgement
  from judged;
  return v_judgement;
end
$$;

comment on function private.judge_signals is
'What of the candidates is valid, new and within the allowance, and the code of every other. The
caller holds the lock of the account.';

create function private.record_batch(
  account private.accounts,
  request_id uuid,
  payload_hash bigint,
  summary private.summary,
  refused jsonb
)
returns json
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := record_batch.account;
  v_batch private.batches;
begin
  v_batch.received_at := private.clock();
  v_batch.transaction_id := pg_current_xact_id();
  v_batch.payload_hash := record_batch.payload_hash;
  if summary.signals > 0 then
    v_batch.first_seq := summary.first_seq;
    v_batch.last_seq := summary.last_seq;
  end if;
  v_batch.first_generated_at := summary.first_generated_at;
  v_batch.last_generated_at := summary.last_generated_at;
  v_batch.last_valid_until := summary.last_valid_until;
  v_batch.account_no := v_account.account_no;
  v_batch.request_id := record_batch.request_id;
  v_batch.correlation_id := left(
    nullif(current_setting('request.headers', true), '')::json ->> 'x-correlation-id', 64);
  v_batch.refused := record_batch.refused;
  insert into private.batches select v_batch.*;

  if summary.signals > 0 then
    v_account.last_seq := summary.last_seq;
    perform private.append_link(
      v_account, 'signals', summary.first_seq, summary.last_seq,
      summary.first_generated_at, summary.last_generated_at, v_batch.received_at,
      summary.digest);
  end if;
  return private.verdict_of(
    v_batch.request_id, v_batch.first_seq, v_batch.last_seq, v_batch.refused);
end
$$;

comment on function private.record_batch is
'Writes the ledger row and the audit link of what was stored, moves the head of the locked account
(written as it is given, apart from that) and returns the verdict.';

create function private.store_batch(
  account private.accounts,
  request_id uuid,
  payload_hash bigint,
  candidates private.candidate[]
)
returns json
language plpgsql
set search_path = ''
as $$
declare
  v_account private.accounts := private.opened_windows(store_batch.account);
  v_tier private.tiers;
  v_summary private.summary;
  v_judgement private.judgement;
  v_day_left bigint;
  v_minute_left bigint;
begin
  select tier.* into v_tier from private.tiers as tier where tier.tier = v_account.tier;
  v_day_left := coalesce(v_tier.signals_per_day - v_account.day_used, 9223372036854775807);
  v_minute_left := coalesce(
    v_tier.signals_per_minute - v_account.minute_used, 9223372036854775807);
  v_summary := private.summary_of(store_batch.candidates, v_account.last_seq + 1);
  -- The usual batch needs no judgement, and is stored at twice the rate.
  if (v_summary.refused = 0
    and v_summary.signals <= least(v_day_left, v_minute_left)
    and v_summary.first_generated_at > v_account.packed_until
    and private.all_inserted(v_account, store_batch.candidates)) is not true then
    v_judgement := private.judge_signals(
      v_account, store_batch.candidates, v_day_left, v_minute_left);
    v_summary := private.summary_of(v_judgement.accepted, v_account.last_seq + 1);
    perform private.insert_signals(v_account, v_judgement.accepted);
  end if;
  v_account.day_used := v_account.day_used + v_summary.signals;
  v_account.minute_used := v_account.minute_used + v_summary.signals;
  return private.record_batch(
    v_account, store_batch.request_id, store_batch.payload_hash, v_summary, v_judgement.refused);
end
$$;

comment on function private.store_batch is
'Stores the candidates within the allowance, writes the ledger row and the audit link, and moves the
head of the locked account.';
