import { contract, type ItemCode } from "../_shared/contract.ts";
import { ApiError } from "../_shared/errors.ts";
import { elementsOf, membersOf, type Span } from "../_shared/json_text.ts";
import { isObject, problemOf } from "../_shared/signal.ts";
import { isUnstorable } from "../_shared/unstorable.ts";

/** A request to store signals, of which each may still have a problem of its own. */
export interface Batch {
  readonly requestId: string;
  readonly signals: readonly unknown[];
}

/** Why signals are refused, by their index in the batch. */
export type Refusals = ReadonlyMap<number, ItemCode>;

const UUID = new RegExp(contract.patterns.uuid);

/** The request_id of a body that may otherwise be anything. */
export function requestIdOf(body: unknown): string | null {
  if (!isObject(body) || typeof body.request_id !== "string") return null;
  return UUID.test(body.request_id) ? body.request_id : null;
}

export function batchOf(body: unknown): Batch {
  if (!isObject(body)) throw invalid("the body is not a JSON object");
  for (const key of Object.keys(body)) {
    if (key !== "request_id" && key !== "signals") {
      throw invalid(`${JSON.stringify(key.slice(0, 64))} is not a part of a batch`);
    }
  }
  const requestId = requestIdOf(body);
  if (requestId === null) throw invalid("request_id is not a UUID in the form 8-4-4-4-12");
  const { signals } = body;
  if (!Array.isArray(signals)) throw invalid("signals is not an array");
  if (signals.length > contract.limits.batch_signals) throw new ApiError("batch_too_large");
  return { requestId, signals };
}

/** The signals that break the contract. */
export function refusalsOf({ signals }: Batch): Map<number, ItemCode> {
  const refusals = new Map<number, ItemCode>();
  for (const [index, signal] of signals.entries()) {
    const problem = problemOf(signal);
    if (problem !== null) refusals.set(index, problem);
  }
  return refusals;
}

/** The signals that hold what jsonb cannot, found in how they were written. */
export function unstorableSignals(text: string): Map<number, ItemCode> {
  const refusals = new Map<number, ItemCode>();
  for (const [index, signal] of signalSpans(text).entries()) {
    if (text[signal.start] !== "{") continue;
    const member = membersOf(text, signal).find((span) => isUnstorable(text, span));
    if (member !== undefined) refusals.set(index, fieldCode(member.key));
  }
  return refusals;
}

/**
 * The batch with null in place of each refused signal.
 *
 * Everything else stays as it was written, digit by digit, and keeps its index, so the database
 * counts and numbers the signals as the caller does.
 */
export function withoutRefused(text: string, { requestId }: Batch, refusals: Refusals): string {
  const signals = signalSpans(text).map(({ start, end }, index) =>
    refusals.has(index) ? "null" : text.slice(start, end)
  );
  return `{"request_id":"${requestId}","signals":[${signals.join(",")}]}`;
}

/** A repeated name counts as its last value, as it does for `JSON.parse` and jsonb. */
function signalSpans(text: string): Span[] {
  const members = membersOf(text, { start: 0, end: text.length });
  const signals = members.findLast(({ key }) => key === "signals");
  return signals === undefined ? [] : elementsOf(text, signals);
}

function fieldCode(field: string): ItemCode {
  const code = `invalid_${field}`;
  return Object.hasOwn(contract.item_codes, code) ? code as ItemCode : "unknown_field";
}

function invalid(why: string): ApiError {
  return new ApiError(
    "invalid_request",
    `Cannot store the batch: ${why}; send {"request_id": a UUID, "signals": an array}.`,
  );
}
