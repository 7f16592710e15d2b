/**
 * The state of one subscription, and what to do next to keep it live. No I/O, no clock.
 *
 * Whoever owns it tells what happens (`joined`, `broadcast`, `page`, `head`, …) and, before each
 * of these and at `wakeAt`, what time it is (`tick`). It answers with a state and its reason, and
 * with what it wants: a query by seq, a check of where the account is, another join.
 *
 * A broadcast that never comes makes no noise: a dead replication slot looks like a quiet account.
 * So when no broadcast has come for a while that was on time by the database's clock, the database
 * is asked where the account is, and what it shows has to be broadcast within a moment
 * (`GRACE_MS`, and the interval at which the account's broadcasts are put together): strand.ts.
 *
 * The Python client has the same machine; tests/scenarios/live_delivery.json holds both to it.
 */

import { type Announcement, Coverage, type SeqQuery } from "./coverage.ts";
import { Strand } from "./strand.ts";
import {
  type Broadcast,
  type EventBroadcast,
  type EventPage,
  type FoundEvent,
  type Head,
  lastSignalSeqOf,
  type Page,
  type SignalEvent,
  type StoredSignal,
} from "./wire.ts";

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

/** What a subscription hands out. */
export type News =
  | { readonly kind: "signal"; readonly signal: StoredSignal }
  | { readonly kind: "event"; readonly event: SignalEvent };

export interface SubscriptionOptions {
  readonly afterSeq?: number;
  readonly bufferSignals?: number;
  readonly pageSize?: number;
  /** That of the service when it is left out. */
  readonly checkIntervalMs?: number;
  /** Whether broadcasts tell only of signals that the queries return. */
  readonly ownChannel?: boolean;
  /**
   * Follow events, too, those of which it does not answer false; null for an event that does not
   * say enough without its signal, which queries bring.
   */
  readonly matchesEvent?: (event: FoundEvent) => boolean | null;
  readonly afterEventSeq?: number;
}

/** How long after the database showed a signal its broadcast may come; how long live may lag. */
const GRACE_MS = 1000;
/**
 * How long nothing may show where the account is, until the service has told how long. What is
 * lost then shows within it, an answer and GRACE_MS: in 5 seconds.
 */
const CHECK_INTERVAL_MS = 3500;
/** A check that has no answer after so long shows nothing: what it would show may be lost. */
const CHECK_MS = 1500;
/** How far apart checks are at most: by them it is known what time it is in the database. */
const CLOCK_MS = 60_000;
/** How long a channel has at least after another join to prove that broadcasts come again. */
const REJOIN_MS = 5000;
/** If the server has not said so long after a join that it follows the database, it never will. */
const READY_MS = 15_000;

/**
 * Follows one account: its signals each once and by seq, and how far that can be trusted. Its
 * events, if asked, as well: each once, by the seq of events, and after the signals it is about.
 */
export class Subscription {
  readonly #signals: Strand<StoredSignal>;
  readonly #events: Strand<FoundEvent> | null = null;
  readonly #strands: readonly (Strand<StoredSignal> | Strand<FoundEvent>)[];
  readonly #matchesEvent: ((event: FoundEvent) => boolean | null) | undefined;
  readonly #keepsInterval: boolean;
  readonly #ownChannel: boolean;
  #checkIntervalMs: number;
  #now = 0;
  /** What time it was in the database, and when that was. */
  #databaseTime: { readonly time: number; readonly notedAt: number } | null = null;
  #checkedAt = 0;
  #dueAt = Infinity;
  #joined = false;
  #everJoined = false;
  #replicating = false;
  #lost: LossReason | "not_joined" = "not_joined";
  #closed: "closed_by_user" | "failed" | null = null;
  /** The interval of the account's broadcasts; null before a check has told it. */
  #intervalMs: number | null = null;
  #givenTimeAt = -Infinity;
  #state: State = "connecting";
  #reason: Reason | null = "not_joined";

  constructor(matches: (signal: StoredSignal) => boolean, options: SubscriptionOptions = {}) {
    const { matchesEvent } = options;
    const sizes = {
      bufferSize: options.bufferSignals ?? 10_000,
      pageSize: options.pageSize ?? 1000,
    };
    this.#signals = new Strand(new Coverage(matches, { ...sizes, afterSeq: options.afterSeq }));
    this.#matchesEvent = matchesEvent;
    if (matchesEvent !== undefined) {
      this.#events = new Strand(
        new Coverage((event: FoundEvent) => matchesEvent(event) === true, {
          ...sizes,
          afterSeq: options.afterEventSeq,
        }),
      );
    }
    this.#strands = this.#events === null ? [this.#signals] : [this.#signals, this.#events];
    this.#keepsInterval = options.checkIntervalMs !== undefined;
    this.#checkIntervalMs = options.checkIntervalMs ?? CHECK_INTERVAL_MS;
    this.#ownChannel = options.ownChannel ?? false;
  }

  get state(): State {
    return this.#state;
  }

  /** Why it is not live; null when it is. */
  get reason(): Reason | null {
    return this.#reason;
  }

  /** Whether it is live and not even a moment behind: all that it knows of is here. */
  get isUpToDate(): boolean {
    return this.#state === "live" && !this.#isBehind;
  }

  /** Everything of the filter up to this seq has been handed out; null before it is known. */
  get cursor(): number | null {
    return this.#signals.coverage.cursor;
  }

  /** The same for the seq of events; null as well when these are not followed. */
  get eventCursor(): number | null {
    return this.#events?.coverage.cursor ?? null;
  }

  /** How many signals and events wait to be taken. */
  get buffered(): number {
    return this.#signals.coverage.buffered + (this.#events?.coverage.buffered ?? 0);
  }

  /** Whether there is something to take now. */
  get hasNext(): boolean {
    return this.#signals.coverage.next !== undefined || this.#eventIsNext;
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
    for (const { deadline, behind } of this.#strands) {
      moments.push(deadline);
      if (behind !== null) moments.push(behind.since + GRACE_MS);
    }
    if (this.#bringsNothing) moments.push(this.#rejoinAt);
    return Math.min(...moments.filter((moment) => moment > this.#now));
  }

  /** It is `now`, in milliseconds of a clock that never goes back. */
  tick(now: number): void {
    this.#now = now;
    const wasMissing = this.#missing;
    for (const strand of this.#strands) {
      if (strand.tick(now) && !wasMissing) this.#givenTimeAt = -Infinity;
    }
    this.#judge();
  }

  /** The channel is joined: what was stored while it was not has to be fetched. */
  joined(): void {
    this.#joined = this.#everJoined = true;
    this.#replicating = false;
    this.#givenTimeAt = this.#now;
    for (const strand of this.#strands) strand.joined();
    this.#judge();
  }

  /** The server now follows the database: what was stored until here has to be fetched. */
  replicationReady(): void {
    this.#replicating = true;
    for (const strand of this.#strands) strand.joined();
    this.#judge();
  }

  /** The channel is lost, or cannot be joined, and broadcasts with it. */
  left(reason: LossReason): void {
    this.#joined = this.#replicating = false;
    this.#lost = reason;
    for (const strand of this.#strands) strand.notAnswerable();
    this.#judge();
  }

  /** Want a check now: a broadcast came that cannot be read, say. */
  checkDue(): void {
    this.#dueAt = Math.min(this.#dueAt, this.#now);
  }

  close(reason: "closed_by_user" | "failed" = "closed_by_user"): void {
    this.#closed ??= reason;
    this.#judge();
  }

  /** Take in a broadcast of signals that the channel brought. */
  broadcast({ first_seq, last_seq, sentAt, signals }: Broadcast): void {
    const message = { firstSeq: first_seq, lastSeq: last_seq, items: signals };
    this.#takeIn(this.#signals, message, sentAt);
  }

  /** Take in a broadcast of events that the channel brought. */
  eventBroadcast({ first_seq, last_seq, sentAt, changes }: EventBroadcast): void {
    if (this.#events === null) return;
    // Those that do not say enough: a query brings them with their signals.
    const items = changes?.some((event) => this.#matchesEvent?.(event) === null) ? null : changes;
    this.#signalsAreKnownBy(items ?? []);
    this.#takeIn(this.#events, { firstSeq: first_seq, lastSeq: last_seq, items }, sentAt);
  }

  /** Take in the answer to a query, and when that was asked. */
  page(query: SeqQuery, { signals, next_cursor, last_seq }: Page, askedAt = this.#now): void {
    const newest = signals.at(-1)?.seq ?? 0;
    const isComplete = next_cursor === null;
    const throughSeq = isComplete ? last_seq : Math.max(newest, query.afterSeq);
    this.#signals.coverage.answer(query, { items: signals, throughSeq, lastSeq: last_seq });
    const shown = this.#ownChannel ? newest : last_seq;
    this.#answeredBy(this.#signals, last_seq, shown, isComplete, askedAt);
  }

  /** Take in the answer to a query of events, and when that was asked. */
  eventPage(query: SeqQuery, { events, last_seq }: EventPage, askedAt = this.#now): void {
    if (this.#events === null) return;
    const throughSeq = events.at(-1)?.seq ?? last_seq;
    this.#events.coverage.answer(query, { items: events, throughSeq, lastSeq: last_seq });
    this.#signalsAreKnownBy(events);
    this.#answeredBy(this.#events, last_seq, last_seq, throughSeq >= last_seq, askedAt);
  }

  /** Take in the answer to a check, and when that was asked. */
  head(head: Head, askedAt = this.#now): void {
    this.#intervalMs = head.broadcast_interval_ms;
    if (!this.#keepsInterval && head.check_interval_ms !== null) {
      this.#checkIntervalMs = head.check_interval_ms;
    }
    if (head.databaseTime !== null) {
      this.#databaseTime = { time: head.databaseTime, notedAt: this.#now };
    }
    this.#checkedAt = Math.max(this.#checkedAt, askedAt);
    if (askedAt >= this.#dueAt) this.#dueAt = Infinity;
    this.#signals.coverage.known(head.last_seq);
    let shown: number | null = head.last_seq;
    // Of one trader only that there is no more, when nothing has to be fetched.
    if (this.#ownChannel) shown = this.#signals.coverage.isBehind ? null : 0;
    this.#checked(this.#signals, shown, askedAt);
    if (this.#events !== null) {
      this.#events.coverage.known(head.last_event_seq);
      this.#checked(this.#events, head.last_event_seq, askedAt);
    }
    this.#judge();
  }

  /** The query to make now, or null when nothing is missing or the buffer has no room. */
  nextQuery(): SeqQuery | null {
    return this.#closed === null ? this.#signals.coverage.nextQuery() : null;
  }

  /** The same for events. */
  nextEventQuery(): SeqQuery | null {
    return this.#closed === null ? this.#events?.coverage.nextQuery() ?? null : null;
  }

  /** Hand out the next signal or event, or undefined when there is none yet. */
  take(): News | undefined {
    const found = this.#eventIsNext ? this.#events?.coverage.take() : undefined;
    if (found !== undefined) {
      const { signal: _, ...event } = found;
      return { kind: "event", event };
    }
    const signal = this.#signals.coverage.take();
    return signal && { kind: "signal", signal };
  }

  /** Whether there is an event of which no signal has still to be taken. */
  get #eventIsNext(): boolean {
    const event = this.#events?.coverage.next;
    return event !== undefined && (this.cursor ?? 0) >= lastSignalSeqOf(event);
  }

  /** What has become of something is stored. */
  #signalsAreKnownBy(events: readonly SignalEvent[]): void {
    for (const event of events) this.#signals.coverage.known(lastSignalSeqOf(event));
  }

  get #missing(): boolean {
    return this.#strands.some(({ missing }) => missing);
  }

  get #isBehind(): boolean {
    return this.#strands.some(({ coverage }) => coverage.isBehind);
  }

  get #provenAt(): number {
    return Math.min(...this.#strands.map(({ provenAt }) => provenAt));
  }

  get #checkAt(): number {
    // The clock of this machine and that of the database may not drift apart unnoticed.
    const clockAt = this.#checkedAt + Math.max(CLOCK_MS, this.#checkIntervalMs);
    const proofAt = this.#provenAt + this.#checkIntervalMs;
    return Math.min(proofAt, clockAt, this.#dueAt, ...this.#strands.map(({ askAt }) => askAt));
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

  #takeIn<T extends SignalEvent | StoredSignal>(
    strand: Strand<T>,
    message: Announcement<T>,
    sentAt: number,
  ): void {
    strand.broadcast(message, this.#joined);
    const ageMs = this.#ageMs(sentAt);
    if (ageMs < -GRACE_MS) {
      this.#databaseTime = null; // The clocks have drifted apart.
      this.checkDue();
    } else if (ageMs < GRACE_MS && !strand.missing && !strand.coverage.isBehind) {
      strand.proven(this.#now);
    }
    this.#judge();
  }

  /** How long ago a broadcast was sent: all may be late by the same time. */
  #ageMs(sentAt: number): number {
    if (this.#databaseTime === null) return Infinity;
    const { time, notedAt } = this.#databaseTime;
    return time + this.#now - notedAt - sentAt;
  }

  /** Conclude what follows from a page beside what it brought. */
  #answeredBy<T extends SignalEvent | StoredSignal>(
    strand: Strand<T>,
    lastSeq: number,
    shown: number,
    isComplete: boolean,
    askedAt: number,
  ): void {
    strand.proven(askedAt);
    if (this.#replicating && !strand.isAnswerable && strand.coverage.isSettled) {
      strand.becomeAnswerable(lastSeq, this.#now);
      if (this.#missing) this.#dueAt = Math.min(this.#dueAt, this.#askAt);
    }
    const mayTell = this.#intervalMs !== null && (isComplete || !strand.hasPushed(shown));
    if (mayTell && strand.showsUnpushed(shown, askedAt, this.#latenessMs)) {
      if (this.#ownChannel && this.#now < this.#checkedAt + GRACE_MS) {
        strand.expect(shown, this.#now + this.#latenessMs);
      } else {
        strand.askAbout(shown, this.#askAt);
      }
    }
    this.#judge();
  }

  /** When to ask about what the channel has not told of, if it does not tell before. */
  get #askAt(): number {
    return this.#now + Math.min(this.#latenessMs, this.#checkIntervalMs);
  }

  /** Conclude what follows from a check, which tells how long a broadcast may take. */
  #checked<T extends SignalEvent | StoredSignal>(
    strand: Strand<T>,
    shown: number | null,
    askedAt: number,
  ): void {
    const until = this.#now + this.#latenessMs;
    strand.proven(askedAt);
    strand.checked(askedAt, until);
    if (shown !== null && strand.showsUnpushed(shown, askedAt, this.#latenessMs)) {
      strand.expect(shown, until);
    }
  }

  /** Settle the state that follows from everything told so far. */
  #judge(): void {
    for (const strand of this.#strands) strand.judge(this.#now);
    [this.#state, this.#reason] = this.#judgement();
  }

  #judgement(): [State, Reason | null] {
    if (this.#closed !== null) return ["closed", this.#closed];
    if (!this.#joined) return [this.#everJoined ? "stale" : "connecting", this.#lost];
    if (this.#missing) return ["stale", "broadcasts_missing"];
    if (this.#now >= this.#unreachableAt) return ["stale", "unreachable"];
    if (!this.#replicating) return ["catching_up", "awaiting_replication"];
    const late = this.#strands.filter((strand) => !this.#isAtMostAMomentBehind(strand));
    if (late.length > 0) {
      const isFull = late.some(({ coverage }) => coverage.isFull);
      return ["catching_up", isFull ? "slow_consumer" : "backfilling"];
    }
    return ["live", null];
  }

  /**
   * A live subscription stays live for the moment that fetching a broadcast's signals takes.
   * Otherwise an account with large batches, whose broadcasts carry none, would never be live.
   */
  #isAtMostAMomentBehind({ behind, coverage }: Strand<StoredSignal> | Strand<FoundEvent>): boolean {
    if (behind === null) return true;
    return this.#state === "live" && coverage.isSettled && this.#now < behind.since + GRACE_MS;
  }
}
