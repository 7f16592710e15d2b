import type { Arguments } from "../_shared/arguments.ts";
import { contract } from "../_shared/contract.ts";
import { microsecondsOf } from "../_shared/timestamp.ts";
import type { Question } from "./questions.ts";

const CLOSED_SECONDS = 3600;
/** A signal is dated by its sender and stored a little later, by the clock of the database. */
const MARGIN_SECONDS = 3600;
const BY_TIME: readonly unknown[] = ["newest", "oldest"];
/** What changes of a signal that is stored. */
const STATUS_FIELDS: readonly unknown[] = ["status", "outcome"];

/**
 * For how long the caller may keep the answer, as a Cache-Control header.
 *
 * An answer may be kept unasked once no signal of its range can come any more, and if it tells
 * nothing of what becomes of signals. What an operator imports may come later still: an hour is
 * how long it can go unnoticed.
 */
export function lifetimeOf(asked: Arguments, question: Question, now: number): string {
  const isKept = isClosed(asked, now) && isByTime(asked) && !tellsStatus(asked, question);
  return isKept ? `private, max-age=${CLOSED_SECONDS}` : "private, no-cache";
}

function isClosed({ to }: Arguments, now: number): boolean {
  if (typeof to !== "string") return false;
  const seconds = Number(microsecondsOf(to) / 1_000_000n);
  return seconds < now / 1000 - contract.limits.oldest_seconds - MARGIN_SECONDS;
}

function isByTime({ sort, after_seq }: Arguments): boolean {
  return sort === undefined ? after_seq === undefined : BY_TIME.includes(sort);
}

function tellsStatus({ statuses, fields }: Arguments, { showsStatus }: Question): boolean {
  if (statuses !== undefined) return true;
  if (!showsStatus) return false;
  return !Array.isArray(fields) || fields.some((field) => STATUS_FIELDS.includes(field));
}
