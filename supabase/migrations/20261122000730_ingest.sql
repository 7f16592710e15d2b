-- ingest_signals: one batch in, one verdict out, in one transaction.
-- Validation first, then the account's row is locked once; under that lock come replay and storing.
-- Must never break: a request_id that was answered is answered the same again and changes nothing.

create function private.require_request(
  request_id uuid,
  items jsonb,
  what text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if request_id is null or jsonb_typeof(items) is distinct from 'array' then
    perform private.raise_error(
      400, 'invalid_request',
      format('Cannot read the request: it needs a request_id and a list of %s.', what),
      format('Send {"request_id": <uuid>, "%s": [...]}.', what));
  end if;
  -- The edge function holds bodies to 1 MB of text; the same list is at most twice that as jsonb.
  if jsonb_array_length(items) > 5000 or pg_column_size(items) > 2 * 1048576 then
    perform private.raise_error(
      413, 'batch_too_large',
      format('Cannot take the %s: there are more than 5000, or 1 MB of them.', what),
      'Split the list.');
  end if;
end
$$;

comment on function private.require_request is
'PT400 unless the request has an id and a list (of what: signals or changes), PT413 when the list is too
large.';

create function private.ingest_signals(
  request_id uuid,
  signals jsonb
)
returns json
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:write');
  v_payload_hash bigint := jsonb_hash_extended(ingest_signals.signals, 0);
  v_candidates private.candidate[];
  v_account private.accounts;
  v_verdict json;
begin
  perform private.require_request(
    ingest_signals.request_id, ingest_signals.signals, 'signals');
  v_candidates := private.parse_signals(v_account_id, ingest_signals.signals);
  v_account := private.lock_account(v_account_id);
  v_verdict := private.replayed_verdict(
    v_account.account_no, ingest_signals.request_id, v_payload_hash);
  if v_verdict is null then
    v_verdict := private.store_batch(
      v_account, ingest_signals.request_id, v_payload_hash, v_candidates);
  end if;
  return v_verdict;
end
$$;

comment on function private.ingest_signals is 'Body of public.ingest_signals.';

create function public.ingest_signals(
  request_id uuid,
  signals jsonb
)
returns json
language plpgsql
set search_path = ''
as $$
begin
  return private.ingest_signals(ingest_signals.request_id, ingest_signals.signals);
end
$$;

comment on function public.ingest_signals is
'Stores a batch of signals once and answers with its verdict. One bad signal never sinks the batch;
the same request_id gets the same verdict again and changes nothing.';

grant execute on function private.ingest_signals to authenticated;
grant execute on function public.ingest_signals to authenticated;
