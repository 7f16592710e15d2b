-- export_signals: the caller's signals as text, CSV or NDJSON, made here so that nobody has to parse them.
-- A piece is a range of seq: the pieces of a range joined are the export, however it is cut into pieces.
-- Must never break: a piece is the same bytes whenever it is asked for, since signals never change.

create domain private."application/octet-stream" as bytea;

comment on domain private."application/octet-stream" is
'What a function returns that answers with bytes: PostgREST sends them as they are, unquoted.';

create function private.most_signals_located()
returns integer
language sql
immutable
set search_path = ''
as $$ select 200000 $$;

comment on function private.most_signals_located is
'How many signals that are not packed are looked at to find the ends of a range of seq.';

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
declare
  v_most integer := private.most_signals_located();
  -- Before the first that is not packed, or after the last of all, an index or the account tells.
  v_is_from_first boolean :=
    seqs_between.from_time <= account.packed_until or seqs_between.from_time = '-infinity';
  v_is_to_last boolean := seqs_between.to_time > private.clock() + interval '1 minute';
begin
  select
    least(hot.first_seq, packed.first_seq), greatest(hot.last_seq, packed.last_seq)
  into seqs_between.first_seq, seqs_between.last_seq
  from (
    select
      case
        when v_is_from_first or located.signals > v_most
          then (
            select min(signal.seq) from private.signals as signal
            where signal.account_no = account.account_no)
        else located.first_seq
      end as first_seq,
      case
        when v_is_to_last or located.signals > v_most then account.last_seq
        else located.last_seq
      end as last_seq
    from (
      select count(*) as signals, min(signal.seq) as first_seq, max(signal.seq) as last_seq
      from (
        select stored.seq
        from private.signals as stored
        where stored.account_no = account.account_no
          and stored.generated_at >= seqs_between.from_time
          and stored.generated_at < seqs_between.to_time
          and not (v_is_from_first and v_is_to_last)
        limit v_most + 1
      ) as signal
    ) as located
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
the ends of those that are not packed, or where these are too many to look at, of all that are not; and of
the segments that reach into the span. Null where there is none.';

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

create view private.exportable_signals
with (security_invoker = true)
as
select
  signal.generated_at, signal.seq, signal.confidence, signal.price, signal.stop_loss,
  signal.take_profit, signal.valid_until, signal.account_no, signal.trader_no, signal.timeframe,
  signal.action, signal.symbol, signal.metadata, signal.seq as first_seq, signal.seq as last_seq,
  signal.generated_at as first_generated_at, signal.generated_at as last_generated_at
from private.signals as signal
union all
select
  packed.generated_at, packed.seq, packed.confidence, packed.price, packed.stop_loss,
  packed.take_profit, packed.generated_at + packed.valid_for, packed.account_no, packed.trader_no,
  packed.timeframe, packed.action, packed.symbols[packed.symbol_position], packed.metadata,
  packed.first_seq, packed.last_seq, packed.first_generated_at, packed.last_generated_at
from (
  -- The arrays are read side by side, and end together: a null one is null for every signal.
  select
    segment.account_no, segment.first_seq, segment.last_seq, segment.first_generated_at,
    segment.last_generated_at, dictionary.symbols,
    unnest(segment.generated_at_values) as generated_at,
    unnest(segment.seq_offsets) + segment.first_seq - 1 + generate_series(1, segment.signals)
      as seq,
    unnest(segment.confidence_values) as confidence,
    unnest(segment.price_values) as price,
    unnest(segment.stop_loss_values) as stop_loss,
    unnest(segment.take_profit_values) as take_profit,
    unnest(segment.valid_for_values) as valid_for,
    unnest(segment.trader_no_values) as trader_no,
    unnest(segment.timeframe_values) as timeframe,
    unnest(segment.action_values) as action,
    unnest(segment.symbol_positions) as symbol_position,
    unnest(segment.metadata_values) as metadata
  from private.segments as segment
  -- Read from disk once, and not for each signal.
  cross join lateral (select segment.symbols[:] as symbols offset 0) as dictionary
) as packed;

comment on view private.exportable_signals is
'Every signal, with the columns of private.signals and the ends of the segment it is packed in; its own
where it is not packed. A read of most signals takes a third of what private.stored_signals takes, but has
to find its segments by these ends.';

create type private.exported_signal as (
  signal_id uuid,
  seq bigint,
  trader_id uuid,
  symbol text,
  timeframe text,
  generated_at timestamptz,
  action text,
  confidence double precision,
  price double precision,
  stop_loss double precision,
  take_profit double precision,
  valid_until timestamptz,
  metadata jsonb
);

comment on type private.exported_signal is
'A signal as an export shows it: the keys of a line of NDJSON, in the order of the columns of CSV.';

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

create function private.export_text(
  account private.accounts,
  query private.signal_query,
  chosen private.signals[],
  format text,
  for_spreadsheets boolean
)
returns text
language plpgsql
stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
set plan_cache_mode = 'force_generic_plan'
set enable_seqscan = off
set enable_nestloop = off
set jit = off
as $$
declare
  v_is_csv boolean := export_text.format = 'csv';
  -- A cell that begins like this is a formula to a spreadsheet. No other column can.
  v_formulas integer[] := case
    when export_text.for_spreadsheets then array[ascii('='), ascii('+'), ascii('-'), ascii('@')]
  end;
  v_account_id uuid := account.account_id;
  v_account_no integer := case when export_text.chosen is null then account.account_no end;
begin
  return (
    select string_agg(
      case
        when v_is_csv then concat(
          shown.signal_id, ',', shown.seq, ',', shown.trader_id, ',',
          case when ascii(shown.symbol) = any(v_formulas) then '''' end, shown.symbol, ',',
          shown.timeframe, ',',
          -- As JSON has it, in a fraction of the time.
          shown.generated_at::date, 'T', shown.generated_at::time, '+00:00,',
          shown.action, ',', shown.confidence, ',', shown.price, ',', shown.stop_loss, ',',
          shown.take_profit, ',',
          shown.valid_until::date, 'T' || shown.valid_until::time || '+00:00', ',',
          '"' || replace(shown.metadata::text, '"', '""') || '"', e'\r\n')
        else row_to_json(row(
          shown.signal_id, shown.seq, shown.trader_id, shown.symbol, shown.timeframe,
          shown.generated_at, shown.action, shown.confidence, shown.price, shown.stop_loss,
          shown.take_profit, shown.valid_until, shown.metadata
        )::private.exported_signal) || e'\n'
      end,
      '' order by shown.seq)
    from (
      select
        -- As private.signal_id makes it, which would take longer than all the rest when called.
        encode(
          set_byte(
            set_byte(named.hash, 6, get_byte(named.hash, 6) & 15 | 128),
            8, get_byte(named.hash, 8) & 63 | 128),
          'hex')::uuid as signal_id,
        named.*
      from (
        select
          signal.seq, trader.trader_id, signal.symbol, word.timeframe, signal.generated_at,
          word.action, signal.confidence, signal.price, signal.stop_loss, signal.take_profit,
          signal.valid_until, signal.metadata,
          substr(sha256(convert_to(concat(
            v_account_id, e'\n', trader.trader_id, e'\n', signal.symbol, e'\n',
            word.timeframe, e'\n',
            -- As a double, which holds it to the microsecond until 2106, it takes a fifth of the time.
            (date_part('epoch', signal.generated_at) * 1000000)::bigint), 'UTF8')), 1, 16) as hash
        from (
          select
            stored.seq, stored.trader_no, stored.symbol, stored.timeframe, stored.generated_at,
            stored.action, stored.confidence, stored.price, stored.stop_loss, stored.take_profit,
            stored.valid_until, stored.metadata
          from private.exportable_signals as stored
          where stored.account_no = v_account_no
            and stored.last_seq > query.after_seq
            and stored.last_seq <= query.until_seq | private.seq_block()
            and stored.first_seq <= query.until_seq
            -- Written so that the planner does not take the index by time for these.
            and (stored.last_generated_at >= query.from_time) is not false
            and (stored.first_generated_at < query.to_time) is not false
            and stored.seq > query.after_seq
            and stored.seq <= query.until_seq
            and stored.generated_at >= query.from_time
            and stored.generated_at < query.to_time
          union all
          select
            chosen.seq, chosen.trader_no, chosen.symbol, chosen.timeframe, chosen.generated_at,
            chosen.action, chosen.confidence, chosen.price, chosen.stop_loss, chosen.take_profit,
            chosen.valid_until, chosen.metadata
          from unnest(export_text.chosen) as chosen
        ) as signal
        -- Every signal has its trader, but what is missing must be seen.
        left join private.traders as trader on trader.trader_no = signal.trader_no
        cross join lateral (
          select
            (private.timeframes())[signal.timeframe] as timeframe,
            (private.actions())[signal.action] as action
        ) as word
        -- Its own order keeps this a step by itself: the hash is made once, and read three times.
        order by signal.seq
      ) as named
    ) as shown);
end
$$;

comment on function private.export_text is
'The given signals or, for null, all of the account in the limits of the query, as lines of CSV (RFC 4180,
without a header) or NDJSON, by seq; null for none. Only metadata can hold what CSV has to quote.
for_spreadsheets puts an apostrophe before a symbol that would be taken for a formula.';

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

create function private.asks_for_all(query private.signal_query)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_all private.signal_query := private.read_filter(
    from_time => query.from_time, to_time => query.to_time, after_seq => query.after_seq,
    until_seq => query.until_seq);
begin
  return v_all is not distinct from asks_for_all.query;
end
$$;

comment on function private.asks_for_all is
'Whether an answer of read_filter limits nothing but time and seq. A filter that is added to it counts.';

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
  v_account private.accounts;
  v_query private.signal_query := private.sorted_by(query, 'seq');
  v_chosen private.signals[];
  v_header text;
begin
  perform private.require_export(
    export_signals.format, export_signals.after_seq, export_signals.until_seq);
  select account.* into v_account
  from private.accounts as account
  where account.account_id = v_account_id;
  if not private.asks_for_all(query) then
    v_query.row_limit := export_signals.until_seq - export_signals.after_seq;
    v_chosen := private.with_status(
      v_query, private.found_signals(v_query, v_account), v_account);
  end if;
  if export_signals.with_header and export_signals.format = 'csv' then
    v_header := private.csv_header();
  end if;
  return convert_to(
    concat(
      v_header,
      private.export_text(
        v_account, v_query, v_chosen, export_signals.format, export_signals.for_spreadsheets)),
    'UTF8');
end
$$;

comment on function private.export_signals is
'Body of public.export_signals. Where all is asked for it is made straight from where it is stored, in half
the time; what a filter selects is found as query_signals finds it.';

create function public.export_signals(
  format text,
  after_seq bigint,
  until_seq bigint,
  traders uuid[] default null,
  symbols text[] default null,
  symbol_prefix text default null,
  timeframes text[] default null,
  actions text[] default null,
  statuses text[] default null,
  tags text[] default null,
  min_confidence double precision default null,
  max_confidence double precision default null,
  min_price double precision default null,
  max_price double precision default null,
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
    private.read_filter(
      traders => traders, symbols => symbols, symbol_prefix => symbol_prefix,
      timeframes => timeframes, actions => actions, statuses => statuses, tags => tags,
      min_confidence => min_confidence, max_confidence => max_confidence,
      min_price => min_price, max_price => max_price, from_time => "from", to_time => "to",
      after_seq => after_seq, until_seq => until_seq),
    format, after_seq, until_seq, for_spreadsheets, with_header)
$$;

comment on function public.export_signals is
'The caller''s signals of the filter with after_seq < seq <= until_seq, at most 5000 seqs, as UTF-8 text
in the order of seq: csv (RFC 4180, with_header for its first line) or ndjson. Ask with Accept:
application/octet-stream. The answer is empty where no signal is. With statuses it is as of now: a later
one may have others.';

grant select on private.exportable_signals to authenticated;
grant execute on function private.most_signals_located to authenticated;
grant execute on function private.seqs_between to authenticated;
grant execute on function private.csv_header to authenticated;
grant execute on function private.export_text to authenticated;
grant execute on function private.require_export to authenticated;
grant execute on function private.asks_for_all to authenticated;
grant execute on function private.export_range to authenticated;
grant execute on function private.export_signals to authenticated;
grant execute on function public.export_range to authenticated;
grant execute on function public.export_signals to authenticated;
