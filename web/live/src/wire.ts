/** What the service sends: the values, and reading them from JSON that may be anything. */

export interface Outcome {
  readonly entry_price: number | null;
  readonly exit_price: number | null;
  readonly close_reason: string | null;
  /** The result after fees as a fraction: 0.05 is a gain of 5 %. */
  readonly return: number | null;
  readonly fees: number | null;
  readonly reason: string | null;
}

/** A signal as it is stored. `seq` counts the account's signals from 1 without gaps. */
export interface StoredSignal {
  readonly signal_id: string;
  readonly seq: number;
  readonly trader_id: string;
  readonly symbol: string;
  readonly timeframe: string;
  /** ISO 8601 with up to microseconds, more than a Date holds. */
  readonly generated_at: string;
  readonly action: string;
  readonly confidence: number;
  readonly price: number;
  readonly stop_loss: number | null;
  readonly take_profit: number | null;
  readonly valid_until: string | null;
  readonly metadata: Readonly<Record<string, unknown>> | null;
  /** As of the moment of the answer; a broadcast says `generated`, or `expired`. */
  readonly status: string;
  readonly outcome: Outcome | null;
}

/**
 * One event in the life of a signal; of many signals when it is their expiry. `seq` counts the
 * account's events from 1 without gaps, apart from the seq of signals.
 */
export interface SignalEvent {
  readonly seq: number;
  readonly status: string;
  /** The lowest of `expired_seqs` for an expiry. */
  readonly signal_seq: number;
  /** This and what names the signal is null for an expiry. */
  readonly signal_id: string | null;
  readonly trader_id: string | null;
  readonly symbol: string | null;
  readonly timeframe: string | null;
  readonly generated_at: string | null;
  readonly occurred_at: string;
  readonly received_at: string;
  readonly entry_price: number | null;
  readonly exit_price: number | null;
  readonly close_reason: string | null;
  /** The result after fees as a fraction: 0.05 is a gain of 5 %. */
  readonly return: number | null;
  readonly fees: number | null;
  readonly reason: string | null;
  /** The first and last seq of each run of signals that expired together. */
  readonly expired_seqs: readonly (readonly [number, number])[] | null;
}

/** An event as a page may bring it: with the signal, where a filter needs it. */
export interface FoundEvent extends SignalEvent {
  readonly signal?: StoredSignal | null;
}

/** The broadcast `signals_ingested`: a hint that `first_seq` to `last_seq` are stored. */
export interface Broadcast {
  readonly first_seq: number;
  readonly last_seq: number;
  /** The database's time of sending, in milliseconds since 1970. */
  readonly sentAt: number;
  readonly signals: readonly StoredSignal[] | null;
}

/** The broadcast `signals_advanced`: the same of events. */
export interface EventBroadcast {
  readonly first_seq: number;
  readonly last_seq: number;
  readonly sentAt: number;
  readonly changes: readonly FoundEvent[] | null;
}

/** One page of an answer by seq; `last_seq` is the account's in the same snapshot. */
export interface Page {
  readonly signals: readonly StoredSignal[];
  readonly next_cursor: string | null;
  readonly last_seq: number;
}

/** One page of events; `last_seq` is the account's last event seq in the same snapshot. */
export interface EventPage {
  readonly events: readonly FoundEvent[];
  readonly last_seq: number;
}

/** Where an account is, how often it is broadcast at most, and what the service wants to know. */
export interface Head {
  readonly last_seq: number;
  readonly last_event_seq: number;
  readonly broadcast_interval_ms: number;
  /** How long nothing may come before the service wants to be asked; null when it does not say. */
  readonly check_interval_ms: number | null;
  /** In milliseconds since 1970; null when it does not say. */
  readonly databaseTime: number | null;
}

/** Something was sent that is not what the service sends. */
export class UnreadableError extends Error {
  override readonly name = "UnreadableError";
}

export function broadcastOf(value: unknown): Broadcast {
  const { signals, changes: _, ...message } = announcementOf(value);
  return { ...message, signals: isAbsent(signals) ? null : signalsOf(signals) };
}

export function eventBroadcastOf(value: unknown): EventBroadcast {
  const { changes, signals: _, ...message } = announcementOf(value);
  return { ...message, changes: isAbsent(changes) ? null : eventsOf(changes) };
}

export function pageOf(value: unknown): Page {
  const { signals, next_cursor, last_seq } = objectOf(value, "a page");
  if (!isSeq(last_seq) || !(next_cursor === null || typeof next_cursor === "string")) {
    throw new UnreadableError("Cannot read a page: it does not say how far it goes.");
  }
  return { signals: signalsOf(signals), next_cursor, last_seq };
}

export function eventPageOf(value: unknown): EventPage {
  const { events, last_seq } = objectOf(value, "a page of events");
  if (!isSeq(last_seq)) {
    throw new UnreadableError("Cannot read a page of events: it does not say how far it goes.");
  }
  return { events: eventsOf(events), last_seq };
}

export function headOf(value: unknown): Head {
  const head = objectOf(value, "the account's head");
  const { last_seq, last_event_seq, broadcast_interval_ms, check_interval_ms } = head;
  if (!isSeq(last_seq)) {
    throw new UnreadableError("Cannot read the account's head: it has no last_seq.");
  }
  return {
    last_seq,
    last_event_seq: isSeq(last_event_seq) ? last_event_seq : 0,
    broadcast_interval_ms: typeof broadcast_interval_ms === "number" ? broadcast_interval_ms : 0,
    check_interval_ms: typeof check_interval_ms === "number" ? check_interval_ms : null,
    databaseTime: timeOf(head.database_time),
  };
}

/** The highest seq of the signals that an event is about. */
export function lastSignalSeqOf({ signal_seq, expired_seqs }: SignalEvent): number {
  return Math.max(signal_seq, ...(expired_seqs ?? []).map(([, last]) => last));
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (!isObject(value)) throw new UnreadableError(`Cannot read ${what}: it is not a JSON object.`);
  return value;
}

function announcementOf(value: unknown) {
  const message = objectOf(value, "a broadcast");
  const { first_seq, last_seq, broadcast_at, signals, changes } = message;
  if (!isSeq(first_seq) || !isSeq(last_seq) || last_seq < first_seq) {
    throw new UnreadableError("Cannot read a broadcast: it has no range of seq.");
  }
  // Without its time it counts as late: what it tells is used, and the database asked as well.
  return { first_seq, last_seq, sentAt: timeOf(broadcast_at) ?? -Infinity, signals, changes };
}

function eventsOf(value: unknown): readonly FoundEvent[] {
  if (!Array.isArray(value) || !value.every(isEvent)) {
    throw new UnreadableError("Cannot read events: one is not what the service sends.");
  }
  return value;
}

/** Checks what following needs: both places in the order, and the runs of an expiry. */
function isEvent(value: unknown): value is FoundEvent {
  return isObject(value) && isSeq(value.seq) && isSeq(value.signal_seq) &&
    typeof value.status === "string" &&
    (isAbsent(value.signal) || isSignal(value.signal)) &&
    (isAbsent(value.expired_seqs) ||
      Array.isArray(value.expired_seqs) && value.expired_seqs.every(isRun));
}

function isRun(value: unknown): boolean {
  return Array.isArray(value) && value.length === 2 && value.every(isSeq);
}

function timeOf(value: unknown): number | null {
  const time = typeof value === "string" ? Date.parse(value) : NaN;
  return Number.isNaN(time) ? null : time;
}

function signalsOf(value: unknown): readonly StoredSignal[] {
  if (!Array.isArray(value) || !value.every(isSignal)) {
    throw new UnreadableError("Cannot read signals: one is not what the service sends.");
  }
  return value;
}

/** Checks what following needs: the order, the identity and what filters compare. */
function isSignal(value: unknown): value is StoredSignal {
  return isObject(value) && isSeq(value.seq) && typeof value.confidence === "number" &&
    COMPARED_TEXTS.every((name) => typeof value[name] === "string");
}

const COMPARED_TEXTS = ["signal_id", "trader_id", "symbol", "timeframe", "action"] as const;

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}

function isSeq(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0;
}
