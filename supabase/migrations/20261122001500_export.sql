-- export_signals: the caller's signals as text, CSV or NDJSON, made here so that nobody has to parse them.
-- A piece is a range of seq: the pieces of a range joined are the export, however it is cut into pieces.
-- Must never break: a piece is the same bytes whenever it is asked for, since signals never change.

create domain private."application/octet-stream" as bytea;

comment on domain private."application/octet-stream" is
'What a function returns that answers with bytes: PostgREST sends them as they are, unquoted.';

create function private.seqs_between(
  account private.accounts,
  from_time timestamptz,
  to_time timestamptz,
  out first_seq bigint,
  out last_seq bigint
)
language plpgsql
stable
set search_path = ''
as $$
begin
  select
    least(hot.first_seq, packed.first_seq), greatest(hot.last_seq, packed.last_seq)
  into seqs_between.first_seq, seqs_between.last_seq
  from (
    select
      -- With + 0 the span is read by time: by seq, all signals before it would be looked at. For the
      -- ends of the table neither is needed.
      case
        when seqs_between.from_time <= account.packed_until or seqs_between.from_time = '-infinity'
          then (
            select min(signal.seq) from private.signals as signal
            where signal.account_no = account.account_no)
        else (
          select min(signal.seq + 0) from private.signals as signal
          where signal.account_no = account.account_no
            and signal.generated_at >= seqs_between.from_time
            and signal.generated_at < seqs_between.to_time)
      end as first_seq,
      case
        when seqs_between.to_time > private.clock() + interval '1 minute' then account.last_seq
        else (
          select max(signal.seq + 0) from private.signals as signal
          where signal.account_no = account.account_no
            and signal.generated_at >= seqs_between.from_time
            and signal.generated_at < seqs_between.to_time)
      end as last_seq
  ) as hot
  cross join (
    select min(segment.first_seq) as first_seq, max(segment.last_seq) as last_seq
    from private.segments as segment
    where segment.account_no = account.account_no
      and segment.last_generated_at >= seqs_between.from_time
      and segment.first_generated_at < seqs_between.to_time
      -- A segment lies in one month: this leaves out the partitions of the months before.
      and segment.first_generated_at >= date_trunc('month', seqs_between.from_time, 'utc')
  ) as packed;
end
$$;

comment on function private.seqs_between is
'A range of seq that holds every signal of an account from from_time (inclusive) to to_time (exclusive):
the ends of those that are not packed, if the span begins or ends among them, and of the segments that
reach into it. Null where there is none.';

create function private.export_range(
  from_time timestamptz,
  to_time timestamptz
)
returns json
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_account private.accounts;
  v_seqs record;
begin
  select account.* into v_account
  from private.accounts as account
  where account.account_id = v_account_id;
  v_seqs := private.seqs_between(
    v_account, coalesce(export_range.from_time, '-infinity'),
    coalesce(export_range.to_time, 'infinity'));
  return json_build_object(
    'after_seq', coalesce(v_seqs.first_seq - 1, v_account.last_seq, 0),
    'until_seq', coalesce(case when v_seqs.first_seq is not null then v_seqs.last_seq end,
      v_account.last_seq, 0),
    'last_seq', coalesce(v_account.last_seq, 0));
end
$$;

comment on function private.export_range is 'Body of public.export_range.';

create function public.export_range(
  "from" timestamptz default null,
  "to" timestamptz default null
)
returns json
language sql
stable
set search_path = ''
as $$
  select private.export_range("from", "to")
$$;

comment on function public.export_range is
'Which seqs an export of the caller''s signals from a time (inclusive) to a time (exclusive) has to look
through: after_seq < seq <= until_seq, which for no signal is an empty range. What is stored later is no
part of it, so an export of a range stands still. last_seq is the account''s.';

create function private.signals_to_export(
  account_no integer,
  query private.signal_query
)
returns private.signals[]
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
as $$
begin
  return array(
    select signal
    from private.signals as signal
    where signal.account_no = signals_to_export.account_no
      and signal.seq > query.after_seq
      and signal.seq <= query.until_seq
      and signal.generated_at >= query.from_time
      and signal.generated_at < query.to_time
      and (signal.trader_no = any(query.trader_nos)) is not false
      and (signal.symbol = any(query.symbols)) is not false
      and (signal.timeframe = any(query.timeframes)) is not false
      and (signal.action = any(query.actions)) is not false
      and (signal.confidence >= query.min_confidence) is not false
    union all
    select signal
    from private.segments as segment
    cross join lateral private.unpacked_signals(segment, 1, segment.signals) as signal
    where segment.account_no = signals_to_export.account_no
      and segment.last_seq > query.after_seq
      and segment.last_seq <= query.until_seq | private.seq_block()
      and segment.first_seq <= query.until_seq
      and segment.last_generated_at >= query.from_time
      and segment.first_generated_at < query.to_time
      and (segment.trader_nos && query.trader_nos) is not false
      and (segment.symbols && query.symbols) is not false
      and (segment.timeframes && query.timeframes) is not false
      and (segment.actions && query.actions) is not false
      and (segment.confidence_max >= query.min_confidence) is not false
      and signal.seq > query.after_seq
      and signal.seq <= query.until_seq
      and signal.generated_at >= query.from_time
      and signal.generated_at < query.to_time
      and (signal.trader_no = any(query.trader_nos)) is not false
      and (signal.symbol = any(query.symbols)) is not false
      and (signal.timeframe = any(query.timeframes)) is not false
      and (signal.action = any(query.actions)) is not false
      and (signal.confidence >= query.min_confidence) is not false);
end
$$;

comment on function private.signals_to_export is
'All signals of the query, in no order. query_signals picks the few of a page out of each segment; where
nearly all are wanted, to unpack the segments whole takes a third of the time.';

create function private.csv_header()
returns text
language sql
immutable
set search_path = ''
as $$
  select e'signal_id,seq,trader_id,symbol,timeframe,generated_at,action,confidence,price,stop_loss,'
    'take_profit,valid_until,metadata\r\n'
$$;

comment on function private.csv_header is 'The first line of a CSV export: the names of its columns.';

create function private.csv_of(
  signals private.signals[],
  for_spreadsheets boolean
)
returns text
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
begin
  return (
    select string_agg(
      concat(
        shown.signal_id, ',', shown.seq, ',', shown.trader_id, ',',
        -- A cell that begins like this is a formula to a spreadsheet. No other column can.
        case
          when csv_of.for_spreadsheets and left(shown.symbol, 1) in ('=', '+', '-', '@') then ''''
        end,
        shown.symbol, ',', shown.timeframe, ',',
        -- As JSON has it, in a fraction of the time.
        translate(shown.generated_at::text, ' ', 'T') || ':00', ',',
        shown.action, ',', shown.confidence, ',', shown.price, ',', shown.stop_loss, ',',
        shown.take_profit, ',', translate(shown.valid_until::text, ' ', 'T') || ':00', ',',
        '"' || replace(shown.metadata::text, '"', '""') || '"', e'\r\n'),
      '' order by shown.seq)
    from private.shown_signals(csv_of.signals) as shown);
end
$$;

comment on function private.csv_of is
'Signals as lines of CSV (RFC 4180) by seq, without a header; null for none. Only metadata can hold what
has to be quoted. for_spreadsheets puts an apostrophe before a symbol that would be taken for a formula.';

create function private.ndjson_of(signals private.signals[])
returns text
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
as $$
begin
  return (
    select string_agg(row_to_json(line) || e'\n', '' order by line.seq)
    from (
      select
        shown.signal_id, shown.seq, shown.trader_id, shown.symbol, shown.timeframe,
        shown.generated_at, shown.action, shown.confidence, shown.price, shown.stop_loss,
        shown.take_profit, shown.valid_until, shown.metadata
      from private.shown_signals(ndjson_of.signals) as shown
    ) as line);
end
$$;

comment on function private.ndjson_of is
'Signals as lines of JSON by seq, with the columns of the CSV; null for none.';

create function private.require_export(
  format text,
  after_seq bigint,
  until_seq bigint
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if (require_export.format in ('csv', 'ndjson')) is not true then
    perform private.raise_error(
      400, 'invalid_filter', 'Cannot export: format must be csv or ndjson.', 'Use csv or ndjson.');
  end if;
  if (require_export.after_seq >= 0
    and require_export.until_seq - require_export.after_seq between 0 and 5000) is not true then
    perform private.raise_error(
      400, 'invalid_filter',
      'Cannot export: until_seq must be from after_seq, 0 or more, to 5000 after it.',
      'Ask export_range for the range, and for its pieces one after the other.');
  end if;
end
$$;

comment on function private.require_export is
'PT400 unless the format is known, and the range of seq is one that a statement can make in
time, and in memory if each signal has 2 KB of metadata.';

create function private.export_signals(
  query private.signal_query,
  format text,
  after_seq bigint,
  until_seq bigint,
  for_spreadsheets boolean,
  with_header boolean
)
returns bytea
language plpgsql
stable
set search_path = ''
as $$
declare
  v_account_id uuid := private.caller_id('signals:read');
  v_query private.signal_query := query;
  v_signals private.signals[];
begin
  perform private.require_export(
    export_signals.format, export_signals.after_seq, export_signals.until_seq);
  v_query.until_seq := export_signals.until_seq;
  v_signals := private.signals_to_export(
    (select account.account_no from private.accounts as account
      where account.account_id = v_account_id),
    v_query);
  return convert_to(
    concat(
      case
        when export_signals.with_header and export_signals.format = 'csv' then private.csv_header()
      end,
      case export_signals.format
        when 'csv' then private.csv_of(v_signals, export_signals.for_spreadsheets)
        else private.ndjson_of(v_signals)
      end),
    'UTF8');
end
$$;

comment on function private.export_signals is 'Body of public.export_signals.';

create function public.export_signals(
  format text,
  after_seq bigint,
  until_seq bigint,
  traders uuid[] default null,
  symbols text[] default null,
  timeframes text[] default null,
  actions text[] default null,
  min_confidence double precision default null,
  "from" timestamptz default null,
  "to" timestamptz default null,
  for_spreadsheets boolean default true,
  with_header boolean default false
)
returns private."application/octet-stream"
language sql
stable
set search_path = ''
as $$
  select private.export_signals(
    private.read_query(
      traders, symbols, timeframes, actions, min_confidence, "from", "to", after_seq, 'seq', null,
      null),
    format, after_seq, until_seq, for_spreadsheets, with_header)
$$;

comment on function public.export_signals is
'The caller''s signals of the filter with after_seq < seq <= until_seq, at most 5000 seqs, as UTF-8 text
in the order of seq: csv (RFC 4180, with_header for its first line) or ndjson. Ask with Accept:
application/octet-stream. The answer is empty where no signal is.';

grant execute on function private.seqs_between to authenticated;
grant execute on function private.signals_to_export to authenticated;
grant execute on function private.csv_header to authenticated;
grant execute on function private.csv_of to authenticated;
grant execute on function private.ndjson_of to authenticated;
grant execute on function private.require_export to authenticated;
grant execute on function private.export_range to authenticated;
grant execute on function private.export_signals to authenticated;
grant execute on function public.export_range to authenticated;
grant execute on function public.export_signals to authenticated;
