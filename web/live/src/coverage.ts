/**
 * Which signals a subscription has, lacks and may hand out. No I/O, no clock.
 *
 * The account's seq has no gaps, so `covered`, the highest seq below which nothing of the filter
 * is missing, tells everything. A broadcast that continues `covered` extends it; anything else
 * only shows how far the account has come (`known`), and a query by seq closes the distance.
 * Whatever is dropped, repeated or reordered, each signal is handed out once and in seq order.
 */

import type { Broadcast, Page, StoredSignal } from "./wire.ts";

/** A query that would bring the subscription forward. */
export interface SeqQuery {
  readonly afterSeq: number;
  readonly pageSize: number;
  /** What was in doubt when it was asked: a complete answer settles it up to here. */
  readonly doubt: number;
}

export interface CoverageOptions {
  /** Continue after this seq; undefined begins with what is stored from now on. */
  readonly afterSeq: number | undefined;
  readonly bufferSignals: number;
  readonly pageSize: number;
}

/** A query after it returns no signal, only where the account is. */
const BEYOND_EVERY_SEQ = Number.MAX_SAFE_INTEGER;

/** Turns broadcasts and pages, in whatever order they come, into each signal once, by seq. */
export class Coverage {
  readonly #matches: (signal: StoredSignal) => boolean;
  readonly #bufferSignals: number;
  readonly #pageSize: number;
  readonly #ready: StoredSignal[] = [];
  /** Broadcasts beyond a gap, by their first seq. */
  readonly #ahead: Broadcast[] = [];
  #aheadSignals = 0;
  #covered: number | null;
  #known: number;
  #doubt = 1;
  #settled = 0;

  constructor(matches: (signal: StoredSignal) => boolean, options: CoverageOptions) {
    this.#matches = matches;
    this.#bufferSignals = options.bufferSignals;
    this.#pageSize = options.pageSize;
    this.#covered = options.afterSeq ?? null;
    this.#known = options.afterSeq ?? 0;
  }

  /** Everything of the filter up to this seq has been handed out; null before it is known. */
  get cursor(): number | null {
    const next = this.#ready[0];
    return next === undefined ? this.#covered : next.seq - 1;
  }

  /** How many signals wait to be taken. */
  get buffered(): number {
    return this.#ready.length;
  }

  /** Whether an answer has come since the last doubt. */
  get isSettled(): boolean {
    return this.#settled >= this.#doubt;
  }

  /** Whether something is, or may be, stored that is not here. */
  get isBehind(): boolean {
    return this.#covered === null || this.#covered < this.#known || !this.isSettled;
  }

  /** Whether the reader has to take signals before more are fetched. */
  get isFull(): boolean {
    return (this.#bufferSignals - this.#ready.length) * 2 < this.#bufferSignals;
  }

  /** The highest seq that is known to be stored. */
  get furthest(): number {
    return this.#known;
  }

  /** Whether nothing of the filter up to this seq is missing. */
  has(seq: number): boolean {
    return this.#covered !== null && this.#covered >= seq;
  }

  /** What is stored until now may not all be known: only a query can tell. */
  doubt(): void {
    this.#doubt++;
  }

  /** The account has come at least this far. */
  known(lastSeq: number): void {
    this.#known = Math.max(this.#known, lastSeq);
  }

  /** Take in a broadcast: its signals if they come next, else only that they exist. */
  broadcast(message: Broadcast): void {
    this.known(message.last_seq);
    if (this.#covered === null || message.first_seq > this.#covered + 1) {
      this.#keepForLater(message);
    } else {
      this.#extend(message);
      this.#useWhatWasKept();
    }
  }

  /** Take in the answer to a query, however long ago it was asked. */
  page(query: SeqQuery, page: Page): void {
    this.known(page.last_seq);
    if (this.#covered === null) {
      this.#covered = page.last_seq;
    } else if (query.afterSeq > this.#covered) {
      return; // It asked where the present is, which an earlier answer has told.
    } else if (page.next_cursor === null && page.last_seq < query.afterSeq) {
      throw new RangeError(
        `Cannot follow after seq ${query.afterSeq}: the account has only come to ` +
          `${page.last_seq}; start without afterSeq, or with 0 for everything.`,
      );
    }
    const complete = this.#append(page.signals) && page.next_cursor === null;
    if (complete) {
      this.#covered = Math.max(this.#covered, page.last_seq);
      this.#settled = Math.max(this.#settled, query.doubt);
    }
    this.#useWhatWasKept();
  }

  /** The query to make now, or null when nothing is missing or the buffer has no room. */
  nextQuery(): SeqQuery | null {
    if (!this.isBehind || this.isFull) return null;
    const room = this.#bufferSignals - this.#ready.length;
    return {
      afterSeq: this.#covered ?? BEYOND_EVERY_SEQ,
      pageSize: Math.min(this.#pageSize, room),
      doubt: this.#doubt,
    };
  }

  /** Hand out the next signal, or undefined when there is none yet. */
  take(): StoredSignal | undefined {
    return this.#ready.shift();
  }

  /** Append what is new, in order; tell whether there was room for all of it. */
  #append(signals: readonly StoredSignal[]): boolean {
    for (const signal of signals) {
      if (this.#covered !== null && signal.seq <= this.#covered) continue;
      if (this.#matches(signal)) {
        if (this.#ready.length >= this.#bufferSignals) return false;
        this.#ready.push(signal);
      }
      this.#covered = signal.seq;
    }
    return true;
  }

  /** Use a broadcast as far as it continues without a gap. */
  #extend(message: Broadcast): void {
    for (const signal of message.signals ?? []) {
      const follows = this.#covered !== null && signal.seq <= this.#covered + 1;
      if (!follows || !this.#append([signal])) return;
    }
  }

  #keepForLater(message: Broadcast): void {
    const size = message.signals?.length ?? 0;
    if (size === 0 || this.#aheadSignals + size > this.#bufferSignals) return;
    const place = this.#ahead.findLastIndex(({ first_seq }) => first_seq <= message.first_seq);
    this.#ahead.splice(place + 1, 0, message);
    this.#aheadSignals += size;
  }

  #useWhatWasKept(): void {
    for (;;) {
      const next = this.#ahead[0];
      if (next === undefined || this.#covered === null) return;
      if (next.first_seq > this.#covered + 1) return;
      this.#ahead.shift();
      this.#aheadSignals -= next.signals?.length ?? 0;
      this.#extend(next);
    }
  }
}
