import { contract, type ItemCode } from "./contract.ts";
import { mayBeMetadata } from "./metadata.ts";
import { isTimestamp, microsecondsOf } from "./timestamp.ts";

/** The fields that make two signals the same one within an account. */
export interface NaturalKey {
  readonly trader_id: string;
  readonly symbol: string;
  readonly timeframe: string;
  readonly generated_at: string;
}

const FIELDS: ReadonlySet<string> = new Set(contract.fields);
const ACTIONS: ReadonlySet<unknown> = new Set(contract.actions);
const TIMEFRAMES: ReadonlySet<unknown> = new Set(contract.timeframes);
const UUID = new RegExp(contract.patterns.uuid);
const SYMBOL = new RegExp(contract.patterns.symbol);

/**
 * The code of the first check that this parsed JSON value fails, or null.
 *
 * Refuses only what the database refuses too: the database decides what parsing hides (how a
 * number was written) and what needs its clock or its rows (age, traders, duplicates, quotas).
 */
export function problemOf(value: unknown): ItemCode | null {
  if (!isObject(value)) return "invalid_signal";
  if (!Object.keys(value).every((key) => FIELDS.has(key))) return "unknown_field";
  if (!matches(UUID, value.trader_id)) return "invalid_trader_id";
  if (!matches(SYMBOL, value.symbol)) return "invalid_symbol";
  if (!TIMEFRAMES.has(value.timeframe)) return "invalid_timeframe";
  if (!isTimestamp(value.generated_at)) return "invalid_generated_at";
  if (!ACTIONS.has(value.action)) return "invalid_action";
  if (!isConfidence(value.confidence)) return "invalid_confidence";
  if (!isPrice(value.price)) return "invalid_price";
  if (!isAbsent(value.stop_loss) && !isPrice(value.stop_loss)) return "invalid_stop_loss";
  if (!isAbsent(value.take_profit) && !isPrice(value.take_profit)) return "invalid_take_profit";
  if (!isAbsent(value.valid_until) && !isAfter(value.valid_until, value.generated_at)) {
    return "invalid_valid_until";
  }
  if (!isAbsent(value.metadata) && !(isObject(value.metadata) && mayBeMetadata(value.metadata))) {
    return "invalid_metadata";
  }
  return null;
}

/** The UUID (version 8) that everyone computes alike from the account and the natural key. */
export async function signalId(accountId: string, key: NaturalKey): Promise<string> {
  const text = [
    accountId.toLowerCase(),
    key.trader_id.toLowerCase(),
    key.symbol,
    key.timeframe,
    microsecondsOf(key.generated_at),
  ].join("\n");
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  const bytes = new DataView(digest, 0, 16);
  bytes.setUint8(6, (bytes.getUint8(6) & 0x0f) | 0x80);
  bytes.setUint8(8, (bytes.getUint8(8) & 0x3f) | 0x80);
  const high = bytes.getBigUint64(0).toString(16).padStart(16, "0");
  const low = bytes.getBigUint64(8).toString(16).padStart(16, "0");
  return [high.slice(0, 8), high.slice(8, 12), high.slice(12), low.slice(0, 4), low.slice(4)]
    .join("-");
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null;
}

function matches(pattern: RegExp, value: unknown): boolean {
  return typeof value === "string" && pattern.test(value);
}

function isConfidence(value: unknown): boolean {
  return typeof value === "number" && value >= 0 && value <= 1;
}

function isPrice(value: unknown): boolean {
  return typeof value === "number" && Math.abs(value) <= contract.limits.price_magnitude;
}

function isAfter(value: unknown, earlier: string): boolean {
  return isTimestamp(value) && microsecondsOf(value) > microsecondsOf(earlier);
}
