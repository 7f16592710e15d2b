/**
 * Which signals, or events, a subscription has, lacks and may hand out. No I/O, no clock.
 *
 * The account's seq has no gaps, so `covered`, the highest seq below which nothing of the filter
 * is missing, tells everything. A broadcast that continues `covered` extends it; anything else
 * only shows how far the account has come (`known`), and a query by seq closes the distance.
 * Whatever is dropped, repeated or reordered, each item is handed out once and in seq order.
 * Events have a seq of their own, of which the same holds.
 */

/** A signal or an event: it has a place in the order of its account. */
export interface Numbered {
  readonly seq: number;
}

/** A broadcast: `firstSeq` to `lastSeq` are stored; `items` are these, when it has them. */
export interface Announcement<T> {
  readonly firstSeq: number;
  readonly lastSeq: number;
  readonly items: readonly T[] | null;
}

/** The answer to a query: all of the filter up to `throughSeq`, of the account's `lastSeq`. */
export interface Answer<T> {
  readonly items: readonly T[];
  readonly throughSeq: number;
  readonly lastSeq: number;
}

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
  readonly bufferSize: number;
  readonly pageSize: number;
}

/** A query after it returns nothing, only where the account is. */
const BEYOND_EVERY_SEQ = Number.MAX_SAFE_INTEGER;

/** A service that does not answer is not asked for fewer at once. */
const SMALLEST_PAGE = 10;

/** The same query for half as many each time that it went unanswered: fewer may come in time. */
export function smaller(query: SeqQuery, unanswered: number): SeqQuery {
  const half = Math.max(Math.floor(query.pageSize / 2 ** unanswered), SMALLEST_PAGE);
  return { ...query, pageSize: Math.min(query.pageSize, half) };
}

/** Turns broadcasts and answers, in whatever order they come, into each item once, by seq. */
export class Coverage<T extends Numbered> {
  readonly #matches: (item: T) => boolean;
  readonly #bufferSize: number;
  readonly #pageSize: number;
  readonly #ready: T[] = [];
  /** Broadcasts beyond a gap, by their first seq. */
  readonly #ahead: Announcement<T>[] = [];
  #aheadItems = 0;
  #covered: number | null;
  #known: number;
  #doubt = 1;
  #settled = 0;

  constructor(matches: (item: T) => boolean, options: CoverageOptions) {
    this.#matches = matches;
    this.#bufferSize = options.bufferSize;
    this.#pageSize = options.pageSize;
    this.#covered = options.afterSeq ?? null;
    this.#known = options.afterSeq ?? 0;
  }

  /** Everything of the filter up to this seq has been handed out; null before it is known. */
  get cursor(): number | null {
    return this.next === undefined ? this.#covered : this.next.seq - 1;
  }

  /** What would be taken next. */
  get next(): T | undefined {
    return this.#ready[0];
  }

  /** How many items wait to be taken. */
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

  /** Whether the reader has to take items before more are fetched. */
  get isFull(): boolean {
    return (this.#bufferSize - this.#ready.length) * 2 < this.#bufferSize;
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

  /** Take in a broadcast: its items if they come next, else only that they exist. */
  broadcast(message: Announcement<T>): void {
    this.known(message.lastSeq);
    if (this.#covered === null || message.firstSeq > this.#covered + 1) {
      this.#keepForLater(message);
    } else {
      this.#extend(message);
      this.#useWhatWasKept();
    }
  }

  /** Take in the answer to a query, however long ago it was asked. */
  answer(query: SeqQuery, { items, throughSeq, lastSeq }: Answer<T>): void {
    this.known(lastSeq);
    if (this.#covered === null) {
      this.#covered = lastSeq;
    } else if (query.afterSeq > this.#covered) {
      return; // It asked where the present is, which an earlier answer has told.
    } else if (lastSeq < query.afterSeq) {
      throw new RangeError(
        `Cannot follow after seq ${query.afterSeq}: the account has only come to ` +
          `${lastSeq}; start without a cursor, or with 0 for everything.`,
      );
    }
    if (this.#append(items)) {
      this.#covered = Math.max(this.#covered, throughSeq);
      if (throughSeq >= lastSeq) this.#settled = Math.max(this.#settled, query.doubt);
    }
    this.#useWhatWasKept();
  }

  /** The query to make now, or null when nothing is missing or the buffer has no room. */
  nextQuery(): SeqQuery | null {
    if (!this.isBehind || this.isFull) return null;
    const room = this.#bufferSize - this.#ready.length;
    return {
      afterSeq: this.#covered ?? BEYOND_EVERY_SEQ,
      pageSize: Math.min(this.#pageSize, room),
      doubt: this.#doubt,
    };
  }

  /** Hand out the next item, or undefined when there is none yet. */
  take(): T | undefined {
    return this.#ready.shift();
  }

  /** Append what is new, in order; tell whether there was room for all of it. */
  #append(items: readonly T[]): boolean {
    for (const item of items) {
      if (this.#covered !== null && item.seq <= this.#covered) continue;
      if (this.#matches(item)) {
        if (this.#ready.length >= this.#bufferSize) return false;
        this.#ready.push(item);
      }
      this.#covered = item.seq;
    }
    return true;
  }

  /** Use a broadcast as far as it continues without a gap. */
  #extend(message: Announcement<T>): void {
    for (const item of message.items ?? []) {
      const follows = this.#covered !== null && item.seq <= this.#covered + 1;
      if (!follows || !this.#append([item])) return;
    }
  }

  #keepForLater(message: Announcement<T>): void {
    const size = message.items?.length ?? 0;
    if (size === 0 || this.#aheadItems + size > this.#bufferSize) return;
    const place = this.#ahead.findLastIndex(({ firstSeq }) => firstSeq <= message.firstSeq);
    this.#ahead.splice(place + 1, 0, message);
    this.#aheadItems += size;
  }

  #useWhatWasKept(): void {
    for (;;) {
      const next = this.#ahead[0];
      if (next === undefined || this.#covered === null) return;
      if (next.firstSeq > this.#covered + 1) return;
      this.#ahead.shift();
      this.#aheadItems -= next.items?.length ?? 0;
      this.#extend(next);
    }
  }
}
