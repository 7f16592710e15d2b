begin;
\ir ../helpers.psql
select plan(3);

-- Every function of ours, and which client roles may execute it. A new function fails here until
-- it is listed.
create temporary table listed (function text, roles text) on commit drop;
insert into listed (function, roles)
values
('public.account_head()', 'authenticated'),
('public.account_usage()', 'authenticated'),
('public.advance_signals(uuid,jsonb)', 'authenticated'),
('public.archive_trader(uuid)', 'authenticated'),
(
  'public.count_signals(uuid[],text[],text,text[],text[],text[],text[],double precision,double precision,'
  'double precision,double precision,timestamp with time zone,timestamp with time zone,bigint,bigint,boolean)',
  'authenticated'
),
('public.create_trader(text,boolean)', 'authenticated'),
('public.export_range(timestamp with time zone,timestamp with time zone)', 'authenticated'),
(
  'public.export_signals(text,bigint,bigint,uuid[],text[],text,text[],text[],text[],text[],'
  'double precision,double precision,double precision,double precision,timestamp with time zone,'
  'timestamp with time zone,boolean,boolean)', 'authenticated'
),
('public.ingest_signals(uuid,jsonb)', 'authenticated'),
(
  'public.latest_signals(uuid[],text[],text,text[],text[],timestamp with time zone,integer,text)',
  'authenticated'
),
('public.list_traders(boolean)', 'authenticated'),
('public.my_account()', 'authenticated'),
(
  'public.query_signals(uuid[],text[],text,text[],text[],text[],text[],double precision,'
  'double precision,double precision,double precision,timestamp with time zone,'
  'timestamp with time zone,bigint,bigint,text,text,integer,text[])', 'authenticated'
),
('public.query_events(bigint,integer,boolean)', 'authenticated'),
(
  'public.query_rollups(uuid[],text[],text[],text,timestamp with time zone,'
  'timestamp with time zone,text,integer)', 'authenticated'
),
('public.record_canary(uuid,double precision,text)', 'service_role'),
('public.rename_trader(uuid,text)', 'authenticated'),
('public.send_canary(uuid)', 'service_role'),
('public.set_account_tier(uuid,text)', 'service_role'),
(
  'public.signal_facets(uuid[],text[],text,text[],text[],text[],text[],double precision,double precision,'
  'double precision,double precision,timestamp with time zone,timestamp with time zone,bigint,bigint)',
  'authenticated'
),
(
  'public.co_occurrence(interval,text,integer,uuid[],text[],text[],text[],'
  'double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
(
  'public.correlations(interval,text,text,integer,text,integer,uuid[],text[],'
  'text[],text[],double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
(
  'public.heat_map(text,text,integer,uuid[],text[],text[],text[],'
  'double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
(
  'public.rolling_statistics(interval,text,integer,integer,text,text,integer,'
  'uuid[],text[],text[],text[],double precision,double precision,'
  'timestamp with time zone,timestamp with time zone)', 'authenticated'
),
(
  'public.time_buckets(interval,text,text,integer,uuid[],text[],text[],text[],'
  'double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
('private.account_head()', 'authenticated'),
('private.bucket_of(interval,timestamp with time zone)', 'authenticated'),
('private.bucket_origin()', 'authenticated'),
(
  'private.co_occurrence(text,interval,integer,uuid[],text[],text[],text[],'
  'double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
(
  'private.correlations(text,interval,text,text,integer,integer,uuid[],text[],'
  'text[],text[],double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
('private.countable_request(private.series_request)', 'authenticated'),
('private.exponential_averages(double precision[],integer)', 'authenticated'),
('private.filled(double precision[],text)', 'authenticated'),
(
  'private.heat_map(text,text,integer,uuid[],text[],text[],text[],'
  'double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
('private.lagged_correlation(double precision[],double precision[],integer)', 'authenticated'),
('private.chance_of_any(integer,double precision)', 'authenticated'),
('private.occurrences_of(private.series_request)', 'authenticated'),
(
  'private.parts_of_rollups(private.series_request,private.accounts,text,'
  'tstzmultirange)', 'authenticated'
),
('private.parts_of_signals(private.series_request,tstzrange)', 'authenticated'),
(
  'private.read_series(uuid[],text[],text[],text[],double precision,'
  'double precision,timestamp with time zone,timestamp with time zone,'
  'interval,text,integer)', 'authenticated'
),
('private.require_duration(text,interval,interval,interval)', 'authenticated'),
('private.require_fill(text)', 'authenticated'),
('private.require_narrow(numeric,bigint,text)', 'authenticated'),
('private.require_readable_rollups(private.series_request,text,tstzrange)', 'authenticated'),
('private.require_readable_signals(private.series_request,tstzrange)', 'authenticated'),
(
  'private.require_series_filters(integer,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
('private.require_value(text)', 'authenticated'),
('private.require_whole_number(text,integer,integer,integer)', 'authenticated'),
('private.require_word(text,text,text[])', 'authenticated'),
('private.rolling_of(double precision[],integer,integer)', 'authenticated'),
(
  'private.rolling_statistics(text,interval,text,text,integer,integer,integer,'
  'uuid[],text[],text[],text[],double precision,double precision,'
  'timestamp with time zone,timestamp with time zone)', 'authenticated'
),
('private.series_buckets(private.series_request)', 'authenticated'),
('private.series_in(private.series_request,timestamp with time zone[])', 'authenticated'),
('private.series_key(text,text)', 'authenticated'),
('private.series_of(private.series_request)', 'authenticated'),
('private.series_parts(private.series_request)', 'authenticated'),
('private.series_pieces(private.series_request)', 'authenticated'),
('private.series_value(private.series,text,text)', 'authenticated'),
(
  'private.shown_co_occurrence(private.occurrences,private.occurrences,'
  'double precision,double precision)', 'authenticated'
),
('private.shown_correlations(private.series,private.series,text,text,integer)', 'authenticated'),
('private.shown_rolling(text,double precision[],integer,integer)', 'authenticated'),
('private.shown_series(private.series,text)', 'authenticated'),
('private.signals_of_series(private.series_request,tstzrange)', 'authenticated'),
(
  'private.time_buckets(text,interval,text,integer,uuid[],text[],text[],'
  'text[],double precision,double precision,timestamp with time zone,'
  'timestamp with time zone)', 'authenticated'
),
('private.whole_buckets(private.series_request,text)', 'authenticated'),
('private.account_usage()', 'authenticated'),
('private.adopt_default_partition(text)', ''),
('private.close_partitions(text)', ''),
('private.cron_log_step()', ''),
('private.caller_account()', 'authenticated'),
('private.count_signals(private.signal_query,boolean)', 'authenticated'),
('private.counts_of(private.signals[])', 'authenticated'),
('private.decode_latest_cursor(private.signal_query,text)', 'authenticated'),
('private.encode_latest_cursor(private.signal_query,text,uuid)', 'authenticated'),
('private.exact_counts(private.signal_query,private.accounts,boolean,integer)', 'authenticated'),
('private.facets_of(private.signal_count[])', 'authenticated'),
('private.found_count(private.signal_query)', 'authenticated'),
('private.found_counts(private.signal_query,private.accounts,boolean)', 'authenticated'),
('private.found_together(private.signal_query,private.accounts,private.last_place[])', 'authenticated'),
('private.heap_count(private.signal_query)', 'authenticated'),
('private.in_counting_order(private.signal_query,private.accounts,integer)', 'authenticated'),
('private.is_summed_up(private.signal_query)', 'authenticated'),
('private.last_places(private.signal_query,private.accounts)', 'authenticated'),
(
  'private.latest_since(private.signal_query,private.accounts,timestamp with time zone)',
  'authenticated'
),
('private.latest_signals(private.signal_query,text,integer)', 'authenticated'),
('private.most_rollups_counted()', 'authenticated'),
('private.most_signals_located()', 'authenticated'),
('private.behind_signal(private.signal_query,private.signals)', 'authenticated'),
('private.counted_at_once()', 'authenticated'),
('private.most_signals_counted(boolean)', 'authenticated'),
('private.newer_places(private.signal_query,private.accounts)', 'authenticated'),
('private.next_places(private.last_place[],private.last_place,integer)', 'authenticated'),
('private.parts_to_count(private.signal_query,private.accounts)', 'authenticated'),
('private.require_latest(timestamp with time zone,timestamp with time zone)', 'authenticated'),
('private.rolled_up_seq(private.accounts)', 'authenticated'),
('private.sampled_counts(private.signal_query,private.accounts)', 'authenticated'),
('private.seqs_of(private.signal_query,private.accounts)', 'authenticated'),
('private.signal_facets(private.signal_query)', 'authenticated'),
(
  'private.signals_at_places(private.signal_query,private.accounts,private.last_place[])',
  'authenticated'
),
(
  'private.signals_to_look_at(private.signal_query,private.accounts,boolean,integer)',
  'authenticated'
),
('private.is_whole(private.signal_query,private.segments)', 'authenticated'),
(
  'private.spans_to_count(timestamp with time zone,timestamp with time zone,'
  'timestamp with time zone,timestamp with time zone)', 'authenticated'
),
('private.summed_counts(private.count_part,private.accounts)', 'authenticated'),
('private.whole_since(timestamp with time zone,text)', 'authenticated'),
('private.csv_header()', 'authenticated'),
('private.export_range(timestamp with time zone,timestamp with time zone)', 'authenticated'),
(
  'private.export_signals(private.signal_query,text,bigint,bigint,boolean,boolean)',
  'authenticated'
),
('private.asks_for_all(private.signal_query)', 'authenticated'),
(
  'private.export_text(private.accounts,private.signal_query,private.signals[],text,boolean)',
  'authenticated'
),
('private.require_export(text,bigint,bigint)', 'authenticated'),
(
  'private.seqs_between(private.accounts,timestamp with time zone,timestamp with time zone)',
  'authenticated'
),
('private.day_is_empty(regclass)', ''),
('private.default_partition(text)', ''),
('private.default_partition_has_rows(text,timestamp with time zone)', ''),
('private.default_partition_rows(text)', ''),
('private.drop_partition(text,regclass)', ''),
('private.emptied_days()', ''),
('private.end_run(bigint)', ''),
('private.ensure_partitions(text,timestamp with time zone,timestamp with time zone)', ''),
('private.expired_partitions()', ''),
('private.forget_runs()', ''),
('private.hot_usage(integer)', ''),
('private.job_checks()', ''),
('private.job_command(text,interval)', ''),
('private.kept_since(text,text)', 'authenticated'),
('private.lag_checks()', ''),
('private.make_partition(text,timestamp with time zone)', ''),
('private.missing_partitions(text,timestamp with time zone,timestamp with time zone)', ''),
('private.operations_health()', 'service_role'),
('private.packed_usage(integer,timestamp with time zone,timestamp with time zone)', ''),
('private.partition_checks()', ''),
('private.partitions_step()', ''),
('private.rehome_segments()', ''),
('private.retention_step()', ''),
('private.run_step(bigint,interval)', ''),
('private.size_checks()', ''),
('private.start_run(text)', ''),
('private.account_beyond_hot(integer,integer)', ''),
('private.advance_pass(text,integer)', ''),
('private.announce_packing(integer[],timestamp with time zone)', ''),
('private.due_day()', ''),
('private.due_merge(integer,integer)', ''),
('private.merge_segments(private.merge)', ''),
('private.merge_step()', ''),
('private.next_chunk(private.days)', ''),
('private.pack_day(timestamp with time zone)', ''),
('private.pack_early()', ''),
('private.pack_step()', ''),
('private.pass_place(text)', ''),
('private.reclaim_step()', ''),
('private.segment_parts(private.signals[],integer)', ''),
('private.segment_size(boolean)', ''),
('private.seq_block()', 'authenticated,service_role'),
('private.signal_id(uuid,uuid,text,text,timestamp with time zone)', 'authenticated,service_role'),
('private.shown_signals(private.signals[])', 'authenticated,service_role'),
('private.signals_by_seq(integer,bigint,bigint)', 'authenticated,service_role'),
(
  'private.signals_by_time(integer,timestamp with time zone,timestamp with time zone)',
  'authenticated,service_role'
),
('private.snapshot_is_open(xid8)', ''),
('private.store_segments(private.signals[],text,boolean)', ''),
('private.take_chunk(private.chunk)', ''),
('private.truncate_day(timestamp with time zone)', ''),
('private.unpacked_signals(private.segments,integer,integer)', 'authenticated,service_role'),
('private.actions()', 'authenticated,service_role'),
('private.add_rollups(private.rollups[])', ''),
('private.advance_signals(uuid,jsonb)', 'authenticated'),
('private.apply_changes(private.accounts,uuid,bigint,private.change[])', ''),
('private.close_reasons()', 'authenticated,service_role'),
('private.events_digest(integer,bigint,bigint)', ''),
('private.events_told(private.accounts,bigint,bigint)', ''),
('private.expire_due()', ''),
('private.expire_signals(private.accounts,private.expiries)', ''),
('private.expiry_step()', ''),
('private.find_signals(integer,private.change[])', ''),
('private.judge_changes(private.accounts,private.change[])', ''),
('private.number_from(jsonb)', ''),
('private.publish_events(private.accounts,bigint)', ''),
('private.query_events(bigint,integer,boolean)', 'authenticated'),
('private.events_with_signals(signal_events[])', 'authenticated'),
('private.read_changes(integer,jsonb)', ''),
('private.replayed_advance(integer,uuid,bigint)', ''),
('private.schedule_expiries(xid8)', ''),
('private.signals_at(integer,timestamp with time zone[])', 'authenticated'),
('private.status_at(smallint,timestamp with time zone,timestamp with time zone)',
  'authenticated,service_role'),
('private.statuses()', 'authenticated,service_role'),
('private.statuses_of(private.signals[])', 'authenticated,service_role'),
('private.store_changes(private.accounts,private.change[])', ''),
('private.tell_events(private.accounts,bigint,bigint)', ''),
('private.time_from(text)', ''),
('private.broadcast_batch()', ''),
('private.bucket_width(text)', 'authenticated'),
('private.broadcast_checks()', ''),
('private.broadcast_news(integer,private.batches,bigint)', ''),
('private.broadcast_payload(private.batches)', ''),
('private.broadcast_step()', ''),
('private.automatic_interval(interval)', ''),
('private.canary_checks()', ''),
('private.decide_interval()', ''),
('private.has_signal_of(integer,private.batches)', ''),
('private.hold_broadcast(integer,bigint,bigint,integer[],text)', ''),
('private.message_partitions_end()', ''),
('private.note_failure(integer,bigint,bigint,integer[],text)', ''),
('private.own_channels(private.batches)', ''),
('private.record_canary(uuid,double precision,text)', 'service_role'),
('private.send_broadcast(jsonb,text,text)', ''),
('private.send_canary(uuid)', 'service_role'),
('private.tell_due()', ''),
('private.tell_pending(private.accounts)', ''),
('private.tell_signals(uuid,private.batches,integer[])', ''),
('private.caller_account_no(text)', 'authenticated'),
('private.caller_id(text)', 'authenticated,service_role'),
('private.change_trader(uuid,text,boolean)', 'authenticated'),
('private.clock()', 'authenticated,service_role'),
('private.create_trader(text,boolean)', 'authenticated'),
('private.decode_cursor(private.signal_query,text)', 'authenticated'),
('private.decode_rollup_cursor(text,text)', 'authenticated'),
('private.encode_cursor(private.signal_query,private.signals)', 'authenticated'),
('private.encode_rollup_cursor(text,json)', 'authenticated'),
('private.from_base64url(text)', 'authenticated'),
('private.to_base64url(text)', 'authenticated'),
('private.has_scope(text)', 'authenticated,service_role'),
('private.token_is_live()', 'authenticated,service_role'),
('private.account_of_api_key(private.api_keys)', ''),
('private.api_key_is_live(uuid)', 'authenticated,service_role'),
('private.api_key_json(private.api_keys)', ''),
('private.api_key_scopes()', ''),
('private.create_api_key(text,text[],timestamp with time zone)', 'authenticated'),
('private.exchange_api_key(text)', 'service_role'),
('private.is_live(private.api_keys)', ''),
('private.list_api_keys(boolean)', 'authenticated'),
('private.require_api_key_request(text,text[],timestamp with time zone)', ''),
('private.require_room_for_api_key(integer)', ''),
('private.revoke_api_key(uuid)', 'authenticated'),
('public.create_api_key(text,text[],timestamp with time zone)', 'authenticated'),
('public.exchange_api_key(text)', 'service_role'),
('public.list_api_keys(boolean)', 'authenticated'),
('public.revoke_api_key(uuid)', 'authenticated'),
('private.ingest_signals(uuid,jsonb)', 'authenticated'),
('private.live_rollups(private.accounts,text)', 'authenticated'),
('private.lock_account(uuid)', ''),
('private.merged_rollup(private.rollups,private.rollups)', 'authenticated'),
('private.merged_rollups(private.rollups[],integer)', 'authenticated'),
(
  'private.minute_rollups(private.signal_query,private.rollups,timestamp with time zone)',
  'authenticated'
),
('private.next_minute(timestamp with time zone)', 'authenticated'),
('private.next_to_roll_up(integer)', ''),
('private.opened_windows(private.accounts)', ''),
('private.parse_signals(uuid,jsonb,timestamp with time zone)', ''),
('private.read_signals(uuid,jsonb,timestamp with time zone,boolean)', ''),
('private.query_signals(private.signal_query,text[])', 'authenticated'),
(
  'private.read_filter(uuid[],text[],text,text[],text[],text[],text[],double precision,'
  'double precision,double precision,double precision,timestamp with time zone,'
  'timestamp with time zone,bigint,bigint)', 'authenticated'
),
('private.filter_symbols(private.signal_query,text[],text)', 'authenticated'),
('private.found_signals(private.signal_query,private.accounts)', 'authenticated'),
('private.found_with_status(private.signal_query,private.accounts)', 'authenticated'),
('private.known_time(timestamp with time zone,timestamp with time zone)', 'authenticated'),
('private.oldest_signals(private.signal_query,timestamp with time zone)', 'authenticated'),
('private.ranked_signals(private.signal_query,private.accounts)', 'authenticated'),
('private.read_page(private.signal_query,text,text,integer)', 'authenticated'),
('private.require_fields(text[])', 'authenticated'),
('private.require_page_size(integer)', 'authenticated'),
('private.sealed_cursor(text,bigint)', 'authenticated'),
('private.signal_fields()', 'authenticated'),
('private.sort_key(text,private.signals)', 'authenticated'),
('private.sorted_by(private.signal_query,text)', 'authenticated'),
('private.sorts()', 'authenticated'),
(
  'private.started_behind(private.signal_query,text,timestamp with time zone,bigint)',
  'authenticated'
),
('private.symbol_positions(private.signal_query,private.segments)', 'authenticated'),
('private.tied_before(private.segments,timestamp with time zone,bigint)', 'authenticated'),
(
  'private.with_status(private.signal_query,private.signals[],private.accounts)', 'authenticated'
),
('private.heap_signals(private.signal_query)', 'authenticated'),
('private.equal_positions(private.signal_query,private.segments)', 'authenticated'),
('private.first_signals(private.signal_query,private.signals[])', 'authenticated'),
('private.matching_positions(private.signal_query,private.segments)', 'authenticated'),
('private.span_of(private.signal_query,private.segments)', 'authenticated'),
('private.tested_positions(private.signal_query,private.segments,integer[])', 'authenticated'),
('private.without_idle_filters(private.signal_query,private.segments)', 'authenticated'),
('private.newest_signals(private.signal_query,timestamp with time zone)', 'authenticated'),
('private.open_segments(private.signal_query)', 'authenticated'),
('private.positions_of(anycompatiblearray,anycompatiblearray)', 'authenticated'),
('private.signals_in_order(private.signal_query,bigint)', 'authenticated'),
('private.signals_json(private.signals[],text[],boolean)', 'authenticated'),
('private.signals_at_positions(private.segments,integer[])', 'authenticated'),
('private.with_packed_signals(private.signal_query,private.signals[])', 'authenticated'),
(
  'private.query_rollups(uuid[],text[],text[],text,timestamp with time zone,'
  'timestamp with time zone,text,integer)', 'authenticated'
),
('private.raise_error(integer,text,text,text)', 'authenticated,service_role'),
('private.read_signals(uuid,jsonb,timestamp with time zone,boolean)', ''),
('private.replayed_verdict(integer,uuid,bigint)', ''),
('private.require_request(uuid,jsonb,text)', ''),
('private.require_room_for_trader(private.accounts)', ''),
('private.require_session()', ''),
('private.pay_for_exchange(private.api_keys)', ''),
('private.oldest_packed(integer)', ''),
('private.countable_seq(private.accounts)', 'authenticated'),
('private.require_countable_minute(timestamp with time zone,integer)', 'authenticated'),
('private.require_values(integer,text)', 'authenticated'),
('private.require_resolution(text)', 'authenticated'),
('private.require_name(text,text)', ''),
('private.roll_up(private.seq_range[])', ''),
('private.roll_up_each(private.seq_range[])', ''),
('private.rollup_differences(integer)', ''),
('private.rollup_step()', ''),
('private.rollups_of(private.signals[],text)', 'authenticated'),
('private.set_account_tier(uuid,text)', 'service_role'),
('private.shown_rollup(private.rollups,uuid)', 'authenticated'),
('private.signals_in(private.seq_range[])', ''),
('private.stored_resolutions()', 'authenticated'),
(
  'private.stored_rollups(private.signal_query,private.rollups,private.accounts)', 'authenticated'
),
('private.all_inserted(private.accounts,private.candidate[])', ''),
('private.ensure_import_partitions(private.accounts,private.candidate[])', ''),
('private.import_signals(uuid,uuid,jsonb)', ''),
('private.insert_signals(private.accounts,private.candidate[])', ''),
('private.oldest_import(text)', ''),
('private.store_import(private.accounts,uuid,bigint,private.candidate[])', ''),
('private.summary_of(private.candidate[],bigint)', ''),
('private.verdict_of(uuid,bigint,bigint,jsonb)', ''),
('private.record_batch(private.accounts,uuid,bigint,private.summary,jsonb)', ''),
('private.append_link(private.accounts,text,bigint,bigint,timestamp with time zone,timestamp with time zone,timestamp with time zone,bytea)', ''),
('private.checked_links(integer,bigint,bigint)', ''),
('private.link_problem(private.checked_link,bigint,bytea,bigint,uuid)', ''),
('private.head_problem(private.accounts)', ''),
('private.head_json(private.accounts)', 'authenticated,service_role'),
('private.verify_audit(uuid,bigint,bigint)', 'service_role'),
('private.verify_own_audit(uuid,bigint,bigint)', 'authenticated'),
('public.verify_audit(uuid,bigint,bigint)', 'authenticated,service_role'),
('public.audit_head()', 'authenticated'),
('public.audit_heads(uuid,integer)', 'service_role'),
('private.store_batch(private.accounts,uuid,bigint,private.candidate[])', ''),
('private.judge_signals(private.accounts,private.candidate[],bigint,bigint)', ''),
('private.timeframes()', 'authenticated,service_role'),
('private.timestamp_shapes()', ''),
('private.trader_json(private.traders)', 'authenticated');

create temporary view actual as
select
  format('%I.%I(%s)', schema.nspname, routine.proname, (
    select string_agg(format_type(type, null), ',' order by place)
    from unnest(routine.proargtypes::oid[]) with ordinality as argument (type, place)
  )) as function,
  array_to_string(array(
    select role from unnest(array['anon', 'authenticated', 'service_role']) as role
    where has_function_privilege(role, routine.oid, 'execute')
  ), ',') as roles,
  routine.prosecdef
from pg_proc as routine
inner join pg_namespace as schema on schema.oid = routine.pronamespace
where schema.nspname in ('public', 'private');

select set_eq(
  'select function, roles from actual', 'select function, roles from listed',
  'every function of public and private is executable by the listed roles and no other');

select is_empty(
  $$
    select routine.oid::regprocedure
    from pg_proc as routine
    cross join aclexplode(coalesce(routine.proacl, acldefault('f', routine.proowner))) as granted
    where routine.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
      and granted.grantee = 0
  $$,
  'no function is granted to PUBLIC');

select is_empty(
  $$
    select routine.oid::regprocedure
    from pg_proc as routine
    where routine.pronamespace in ('public'::regnamespace, 'private'::regnamespace)
      and not 'search_path=""' = any(coalesce(routine.proconfig, '{}'))
  $$,
  'every function has an empty search_path');

select * from finish();
rollback;
