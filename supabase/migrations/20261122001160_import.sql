-- Import: signals of the past, by an operator, straight into segments.
-- The rules of ingest hold but for the age and the allowances; replay, seq, ledger and audit are ingest's own.
-- Must never break: a signal that ingest could still be sent is told as a duplicate: packed_until is raised.

create function private.oldest_import(tier text)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return greatest(
    private.kept_since('signals', oldest_import.tier), timestamptz '1970-01-01 00:00:00+00');
end
$$;

comment on function private.oldest_import is
'From when on signals of accounts of this tier are imported: what retention would drop is not, nor what
is before 1970, which is a mistake in the file, and each month of it would get a partition.';

create function private.ensure_import_partitions(
  account private.accounts,
  candidates private.candidate[]
)
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform private.ensure_partitions(missing.parent, missing.month, missing.month)
  from (
    select partition_set.parent, month.starts as month
    from (
      select distinct date_trunc('month', each.generated_at, 'utc') as starts
      from unnest(ensure_import_partitions.candidates) as each
    ) as month
    -- Of events, too: what became of an imported signal may be told later.
    cross join unnest(
      array['private.segments_' || account.tier, 'private.signal_events']
    ) as partition_set (parent)
    -- ensure_partitions lets one in at a time, whether or not it makes something.
    where exists (
      select from private.missing_partitions(partition_set.parent, month.starts, month.starts))
    order by month.starts, partition_set.parent
  ) as missing;
end
$$;

comment on function private.ensure_import_partitions is
'Makes the partitions of the months that the candidates were generated in, where there is none.';

create function private.store_import(
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
  v_unlimited constant bigint := 9223372036854775807;
  v_account private.accounts := store_import.account;
  v_judgement private.judgement := private.judge_signals(
    v_account, store_import.candidates, v_unlimited, v_unlimited);
  v_summary private.summary := private.summary_of(v_judgement.accepted, v_account.last_seq + 1);
begin
  perform private.ensure_import_partitions(v_account, v_judgement.accepted);
  perform private.store_segments(array(
    select (
      each.generated_at, v_account.last_seq + 1 + each.index, each.confidence, each.price,
      each.stop_loss, each.take_profit, each.valid_until, v_account.account_no, each.trader_no,
      each.timeframe, each.action, each.symbol, each.metadata
    )::private.signals
    from unnest(v_judgement.accepted) as each));
  v_account.packed_until := greatest(v_account.packed_until, v_summary.last_generated_at);
  -- Nobody is told of the expiry of signals that had expired before they came here.
  if v_summary.last_valid_until <= private.clock() then
    v_summary.last_valid_until := null;
  end if;
  return private.record_batch(
    v_account, store_import.request_id, store_import.payload_hash, v_summary,
    v_judgement.refused);
end
$$;

comment on function private.store_import is
'Packs what of the candidates is valid and new, writes the ledger row and the audit link, and moves the
head of the locked account.';

create function private.import_signals(
  account_id uuid,
  request_id uuid,
  signals jsonb
)
returns json
language plpgsql
set search_path = ''
as $$
declare
  v_payload_hash bigint := jsonb_hash_extended(import_signals.signals, 0);
  v_account private.accounts;
  v_candidates private.candidate[];
  v_verdict json;
begin
  perform private.require_request(
    import_signals.request_id, import_signals.signals, 'signals');
  select account.* into v_account
  from private.accounts as account
  where account.account_id = import_signals.account_id;
  if not found then
    perform private.raise_error(
      404, 'not_found', 'Cannot import: there is no such account.',
      'An account exists from its first use, or from set_account_tier.');
  end if;
  -- Before the work as well as under the lock: an import that is taken up again is soon where it was.
  v_verdict := private.replayed_verdict(
    v_account.account_no, import_signals.request_id, v_payload_hash);
  if v_verdict is null then
    v_candidates := private.parse_signals(
      import_signals.account_id, import_signals.signals, private.oldest_import(v_account.tier));
    v_account := private.lock_account(import_signals.account_id);
    v_verdict := coalesce(
      private.replayed_verdict(v_account.account_no, import_signals.request_id, v_payload_hash),
      private.store_import(
        v_account, import_signals.request_id, v_payload_hash, v_candidates));
  end if;
  return v_verdict;
end
$$;

comment on function private.import_signals is
'For operators (scripts/import_history): stores signals of an account as ingest_signals does, and
answers as it does, but as old as the account''s tier keeps them, without allowances, and packed at
once. Live subscribers are told of each batch as of any other.';
