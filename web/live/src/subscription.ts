/**
 * The state of one subscription, and what to do next to keep it live. No I/O, no clock.
 *
 * Whoever owns it tells what happens (`joined`, `broadcast`, `page`, `head`, …) and, before each
 * of these and at `wakeAt`, what time it is (`tick`). It answers with a state and its reason, and
 * with what it wants: a query by seq, a check of where the account is, another join.
 *
 * A broadcast that never comes makes no noise: a dead replication slot looks like a quiet account.
 * So each time the database shows a seq that no broadcast has told of, one has to follow within a
 * moment (`GRACE_MS`, and the interval at which the account's broadcasts are put together).
 * Otherwise broadcasts are missing, and stay so until the channel proves itself: by a broadcast
 * that is there in time for what a check has shown, or by a check after another join that shows
 * nothing that was not pushed.
 *
 * The Python client has the same machine; tests/scenarios/live_delivery.json holds both to it.
 */

import { Coverage, type SeqQuery } from "./coverage.ts";
import type { Broadcast, Head, Page, StoredSignal } from "./wire.ts";

/** How far a subscriber can be trusted to be up to date. */
export type State =
  /** It has not joined yet; signals already stored are fetched meanwhile. */
  | "connecting"
  /** It is joined and fetches what it has missed. */
  | "catching_up"
  /** New signals are pushed, and it has all that are stored or is a moment behind. */
  | "live"
  /** New signals may be stored without its knowledge; that is being mended, and queries go on. */
  | "stale"
  /** Nothing more will come. */
  | "closed";

/** Why a subscriber is not live. */
export type Reason =
  /** Connecting: the first join is under way. */
  | "not_joined"
  /** Catching up: the server does not follow the database yet. */
  | "awaiting_replication"
  /** Catching up: signals that no broadcast brought are being fetched. */
  | "backfilling"
  /** Catching up: the buffer is full; more is fetched when the reader has taken. */
  | "slow_consumer"
  /** The connection or the channel ended, or cannot be opened. */
  | "connection_lost"
  /** The connection looked open, but the server answered no heartbeat. */
  | "silent"
  /** The project's limit of connections, joins or messages is reached. */
  | "rate_limited"
  /** The server refuses the token, or this account the topic. */
  | "access_refused"
  /** Stale: the channel looks joined, but signals are stored that it did not tell of. */
  | "broadcasts_missing"
  /** Stale: neither a check nor a broadcast has shown for a while where the account is. */
  | "unreachable"
  /** Closed: close() was called. */
  | "closed_by_user"
  /** Closed: an error that cannot pass; reading throws it. */
  | "failed";

/** Why a channel was lost or could not be joined. */
export type LossReason = Extract<
  Reason,
  "connection_lost" | "silent" | "rate_limited" | "access_refused" | "broadcasts_missing"
>;

export interface SubscriptionOptions {
  readonly afterSeq?: number;
  readonly bufferSignals?: number;
  readonly pageSize?: number;
  readonly checkIntervalMs?: number;
  /** Whether broadcasts tell only of signals that the queries return. */
  readonly ownChannel?: boolean;
}

/** How long after the database showed a signal its broadcast may come; how long live may lag. */
const GRACE_MS = 1000;
/** A check that has no answer after so long has failed. */
export const CHECK_MS = 2000;
/** How long a channel has at least after another join to prove that broadcasts come again. */
const REJOIN_MS = 5000;
/** If the server has not said so long after a join that it follows the database, it never will. */
const READY_MS = 15_000;

/** Follows one account: its signals each once and by seq, and how far that can be trusted. */
export class Subscription {
  readonly #signals: Coverage;
  readonly #checkIntervalMs: number;
  readonly #ownChannel: boolean;
  #now = 0;
  #answeredAt = 0;
  #provenAt = 0;
  #checkAt: number;
  /** Up to which seq something is missing, and since when. */
  #behind: { readonly seq: number; readonly since: number } | null = null;
  #joined = false;
  #everJoined = false;
  #replicating = false;
  #lost: LossReason | "not_joined" = "not_joined";
  #closed: "closed_by_user" | "failed" | null = null;
  /** The interval of the account's broadcasts; null before a check has told it. */
  #intervalMs: number | null = null;
  #pushed = 0;
  #answerableAt: number | null = null;
  #unpushed: { readonly seq: number; readonly until: number } | null = null;
  #missing = false;
  #givenTimeAt = -Infinity;
  #state: State = "connecting";
  #reason: Reason | null = "not_joined";

  constructor(matches: (signal: StoredSignal) => boolean, options: SubscriptionOptions = {}) {
    this.#signals = new Coverage(matches, {
      afterSeq: options.afterSeq,
      bufferSignals: options.bufferSignals ?? 10_000,
      pageSize: options.pageSize ?? 1000,
    });
    this.#checkIntervalMs = options.checkIntervalMs ?? 2000;
    this.#checkAt = this.#checkIntervalMs;
    this.#ownChannel = options.ownChannel ?? false;
  }

  get state(): State {
    return this.#state;
  }

  /** Why it is not live; null when it is. */
  get reason(): Reason | null {
    return this.#reason;
  }

  /** Everything of the filter up to this seq has been handed out; null before it is known. */
  get cursor(): number | null {
    return this.#signals.cursor;
  }

  /** How many signals wait to be taken. */
  get buffered(): number {
    return this.#signals.buffered;
  }

  /** Whether to ask where the account is: nothing has shown it for a while. */
  get checkWanted(): boolean {
    return this.#closed === null && (this.#intervalMs === null || this.#now >= this.#checkAt);
  }

  /** Whether to leave the channel, which brings nothing, and join again. */
  get rejoinWanted(): boolean {
    const mayRejoin = this.#closed === null && this.#joined && this.#bringsNothing;
    return mayRejoin && this.#now >= this.#rejoinAt;
  }

  /** The next time at which a tick changes something. */
  get wakeAt(): number {
    const moments = [this.#checkAt, this.#unreachableAt];
    if (this.#unpushed !== null) moments.push(this.#unpushed.until);
    if (this.#behind !== null) moments.push(this.#behind.since + GRACE_MS);
    if (this.#bringsNothing) moments.push(this.#rejoinAt);
    return Math.min(...moments.filter((moment) => moment > this.#now));
  }

  /** It is `now`, in milliseconds of a clock that never goes back. */
  tick(now: number): void {
    this.#now = now;
    if (this.#unpushed !== null && now >= this.#unpushed.until) {
      this.#unpushed = null;
      if (!this.#missing) this.#givenTimeAt = -Infinity;
      this.#missing = true;
    }
    this.#judge();
  }

  /** The channel is joined: what was stored while it was not has to be fetched. */
  joined(): void {
    this.#joined = this.#everJoined = true;
    this.#replicating = false;
    this.#givenTimeAt = this.#now;
    this.#notAnswerable();
    this.#signals.doubt();
    this.#judge();
  }

  /** The server now follows the database: what was stored until here has to be fetched. */
  replicationReady(): void {
    this.#replicating = true;
    this.#notAnswerable();
    this.#signals.doubt();
    this.#judge();
  }

  /** The channel is lost, or cannot be joined, and broadcasts with it. */
  left(reason: LossReason): void {
    this.#joined = this.#replicating = false;
    this.#lost = reason;
    this.#notAnswerable();
    this.#judge();
  }

  /** Want a check now: a broadcast came that cannot be read, say. */
  checkDue(): void {
    this.#checkAt = this.#now;
  }

  close(reason: "closed_by_user" | "failed" = "closed_by_user"): void {
    this.#closed ??= reason;
    this.#judge();
  }

  /** Take in a broadcast that the channel brought. */
  broadcast(message: Broadcast): void {
    this.#signals.broadcast(message);
    if (this.#joined) this.#pushed = Math.max(this.#pushed, message.last_seq);
    if (this.#unpushed !== null && this.#unpushed.seq <= this.#pushed) {
      this.#unpushed = null;
      this.#missing = false;
    }
    if (!this.#missing && !this.#signals.isBehind) this.#proven();
    this.#judge();
  }

  /** Take in the answer to a query, however long ago it was asked. */
  page(query: SeqQuery, page: Page): void {
    this.#signals.page(query, page);
    this.#answered();
    if (this.#replicating && this.#answerableAt === null && this.#signals.isSettled) {
      this.#becomeAnswerable(page.last_seq);
    }
    const newest = this.#ownChannel ? page.signals.at(-1)?.seq ?? 0 : page.last_seq;
    if (newest > this.#pushed || page.next_cursor === null) this.#shown(newest);
    this.#judge();
  }

  /** Take in the answer to a check: where the account is, and its broadcasts' interval. */
  head({ last_seq, broadcast_interval_ms }: Head): void {
    this.#intervalMs = broadcast_interval_ms;
    this.#signals.known(last_seq);
    this.#answered();
    if (!this.#ownChannel) {
      this.#shown(last_seq);
    } else if (!this.#signals.isBehind) {
      this.#shown(0);
    }
    this.#judge();
  }

  /** The query to make now, or null when nothing is missing or the buffer has no room. */
  nextQuery(): SeqQuery | null {
    return this.#closed === null ? this.#signals.nextQuery() : null;
  }

  /** Hand out the next signal, or undefined when there is none yet. */
  take(): StoredSignal | undefined {
    return this.#signals.take();
  }

  get #unreachableAt(): number {
    return this.#provenAt + this.#checkIntervalMs + CHECK_MS;
  }

  /** How long after the database showed a signal its broadcast may still come. */
  get #latenessMs(): number {
    return GRACE_MS + (this.#intervalMs ?? 0);
  }

  get #bringsNothing(): boolean {
    return this.#missing || !this.#replicating;
  }

  /** When to leave a channel that has not proved itself: late enough for a late broadcast. */
  get #rejoinAt(): number {
    if (!this.#replicating) return this.#givenTimeAt + READY_MS;
    const proofMs = 2 * this.#latenessMs + this.#checkIntervalMs;
    return this.#givenTimeAt + Math.max(REJOIN_MS, proofMs);
  }

  /** The database has just shown where the account is. */
  #answered(): void {
    this.#answeredAt = this.#now;
    this.#proven();
  }

  /**
   * It has just been shown where the account is, if only by a broadcast. All broadcasts may be
   * late by the same time: they put off a check once, not for ever.
   */
  #proven(): void {
    this.#provenAt = this.#now;
    const latest = this.#answeredAt + 2 * this.#checkIntervalMs;
    this.#checkAt = Math.min(this.#now + this.#checkIntervalMs, latest);
  }

  /** From here on the channel need not have told of what is stored. */
  #notAnswerable(): void {
    this.#answerableAt = null;
    this.#unpushed = null;
  }

  /** The channel has to tell of what is stored after `lastSeq`. */
  #becomeAnswerable(lastSeq: number): void {
    this.#pushed = Math.max(this.#pushed, lastSeq);
    this.#answerableAt = this.#now;
    if (this.#missing) {
      this.#checkAt = this.#now + Math.min(this.#latenessMs, this.#checkIntervalMs);
    }
  }

  /** The database has shown that `seq` is stored: it was pushed, or will be in a moment. */
  #shown(seq: number): void {
    if (this.#answerableAt === null || this.#intervalMs === null) return;
    if (seq > this.#pushed) {
      this.#unpushed ??= { seq, until: this.#now + this.#latenessMs };
    } else if (this.#now >= this.#answerableAt + this.#latenessMs) {
      this.#missing = false;
    }
  }

  /** Settle the state that follows from everything told so far. */
  #judge(): void {
    if (!this.#signals.isBehind) {
      this.#behind = null;
    } else if (this.#behind === null || this.#signals.has(this.#behind.seq)) {
      // Under a steady flow something is always missing: what counts is for how long.
      this.#behind = { seq: this.#signals.furthest, since: this.#now };
    }
    [this.#state, this.#reason] = this.#judgement();
  }

  #judgement(): [State, Reason | null] {
    if (this.#closed !== null) return ["closed", this.#closed];
    if (!this.#joined) return [this.#everJoined ? "stale" : "connecting", this.#lost];
    if (this.#missing) return ["stale", "broadcasts_missing"];
    if (this.#now >= this.#unreachableAt) return ["stale", "unreachable"];
    if (!this.#replicating) return ["catching_up", "awaiting_replication"];
    if (this.#behind !== null && !this.#isAMomentBehind(this.#behind.since)) {
      return ["catching_up", this.#signals.isFull ? "slow_consumer" : "backfilling"];
    }
    return ["live", null];
  }

  /**
   * A live subscription stays live for the moment that fetching a broadcast's signals takes.
   * Otherwise an account with large batches, whose broadcasts carry none, would never be live.
   */
  #isAMomentBehind(since: number): boolean {
    return this.#state === "live" && this.#signals.isSettled && this.#now < since + GRACE_MS;
  }
}
