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

/** The event `signals_ingested`: a hint that `first_seq` to `last_seq` are stored. */
export interface Broadcast {
  readonly first_seq: number;
  readonly last_seq: number;
  readonly signals: readonly StoredSignal[] | null;
}

/** One page of an answer by seq; `last_seq` is the account's in the same snapshot. */
export interface Page {
  readonly signals: readonly StoredSignal[];
  readonly next_cursor: string | null;
  readonly last_seq: number;
}

/** Where an account is, and how often it is broadcast at most. */
export interface Head {
  readonly last_seq: number;
  readonly broadcast_interval_ms: number;
}

/** Something was sent that is not what the service sends. */
export class UnreadableError extends Error {
  override readonly name = "UnreadableError";
}

export function broadcastOf(value: unknown): Broadcast {
  const { first_seq, last_seq, signals } = objectOf(value, "a broadcast");
  if (!isSeq(first_seq) || !isSeq(last_seq) || last_seq < first_seq) {
    throw new UnreadableError("Cannot read a broadcast: it has no range of seq.");
  }
  return { first_seq, last_seq, signals: isAbsent(signals) ? null : signalsOf(signals) };
}

export function pageOf(value: unknown): Page {
  const { signals, next_cursor, last_seq } = objectOf(value, "a page");
  if (!isSeq(last_seq) || !(next_cursor === null || typeof next_cursor === "string")) {
    throw new UnreadableError("Cannot read a page: it does not say how far it goes.");
  }
  return { signals: signalsOf(signals), next_cursor, last_seq };
}

export function headOf(value: unknown): Head {
  const { last_seq, broadcast_interval_ms } = objectOf(value, "the account's head");
  if (!isSeq(last_seq)) {
    throw new UnreadableError("Cannot read the account's head: it has no last_seq.");
  }
  const interval = typeof broadcast_interval_ms === "number" ? broadcast_interval_ms : 0;
  return { last_seq, broadcast_interval_ms: interval };
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function objectOf(value: unknown, what: string): Record<string, unknown> {
  if (!isObject(value)) throw new UnreadableError(`Cannot read ${what}: it is not a JSON object.`);
  return value;
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
