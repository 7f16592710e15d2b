/** Follow an account live: each signal and event once, in the order of storing. */

import type { RealtimeClientOptions } from "@supabase/realtime-js";
import { type AccessToken, accountOf } from "./access_token.ts";
import { LiveChannel } from "./channel.ts";
import { checkFilter, eventMatcherOf, matcherOf, type SignalFilter } from "./filter.ts";
import { leastPauseMs, type Loss, lossOf } from "./loss.ts";
import { Service, ServiceError, UnansweredError } from "./service.ts";
import { type News, type Reason, type State, Subscription } from "./subscription.ts";
import { delay, pauseBefore, Pulse, unlessAborted } from "./waiting.ts";
import { broadcastOf, eventBroadcastOf, type SignalEvent, type StoredSignal } from "./wire.ts";

export type { AccessToken, News, Reason, SignalEvent, SignalFilter, State, StoredSignal };
export { ServiceError };

export interface SubscriberOptions {
  /** The project's URL and its publishable key. */
  readonly url: string;
  readonly key: string;
  readonly accessToken: AccessToken;
  /** Which signals to follow; all of the account without it. */
  readonly filter?: SignalFilter;
  /** Listen on the topic of the one trader of the filter, who has asked for an own channel. */
  readonly ownChannel?: boolean;
  /** Continue after a saved `cursor`; 0 begins with the first signal ever stored. */
  readonly afterSeq?: number;
  /** Follow what becomes of the signals of the filter, too: `news()` yields both. */
  readonly events?: boolean;
  /** Continue after a saved `eventCursor`; 0 begins with the first event. */
  readonly afterEventSeq?: number;
  /** So many are held for a slow reader; beyond it they are fetched again later, never lost. */
  readonly bufferSignals?: number;
  /**
   * How long nothing may prove that it is up to date before the database is asked; the service
   * says how long when it is left out.
   */
  readonly checkIntervalMs?: number;
  /** Called with each signal, one at a time; what it throws is told to `onProblem`. */
  readonly onSignal?: (signal: StoredSignal) => unknown;
  /** The same with each event; it makes it follow events. */
  readonly onEvent?: (event: SignalEvent) => unknown;
  readonly onState?: (state: State, reason: Reason | null) => void;
  /** Told of what passes or is mended by itself, for a log; `console.warn` without it. */
  readonly onProblem?: (message: string) => void;
  readonly fetch?: typeof fetch;
  /** A WebSocket, where there is none built in. */
  readonly transport?: RealtimeClientOptions["transport"];
}

const PROMPT_MS = 500;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 3000;

/**
 * Follows the signals of one account, and if asked what becomes of them.
 *
 * Take them by `onSignal` and `onEvent`, or iterate; not both. Broken connections are renewed without end. An
 * error that cannot pass (a scope that is missing) closes it and is thrown by the iteration and by
 * `start`; `cursor` tells where to continue.
 */
export class SignalSubscriber implements AsyncIterableIterator<StoredSignal>, AsyncDisposable {
  readonly #options: SubscriberOptions;
  readonly #filter: SignalFilter;
  readonly #subscription: Subscription;
  readonly #service: Service;
  readonly #changed = new Pulse();
  readonly #closing = new AbortController();
  readonly #madeAt = performance.now();
  #channel: LiveChannel | null = null;
  #running: Promise<unknown> | null = null;
  #error: unknown = null;
  readonly #followsEvents: boolean;
  readonly #checkEarly = 0.9 + Math.random() / 10;
  /** What a callback has not done with. */
  #inHand: News | null = null;
  #wasLive = false;
  #lastLoss = lossOf("");
  #told: readonly [State, Reason | null] = ["connecting", "not_joined"];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: SubscriberOptions) {
    checkOptions(options);
    const filter = options.filter ?? {};
    this.#options = {
      ...options,
      url: options.url.replace(/\/+$/, ""),
      accessToken: async (asked) => await options.accessToken(asked),
    };
    this.#filter = filter;
    this.#service = new Service({
      ...this.#options,
      fetch: options.fetch ?? ((...request) => fetch(...request)),
    });
    this.#followsEvents = options.events === true || options.onEvent !== undefined;
    this.#subscription = new Subscription(matcherOf(filter), {
      ...options,
      matchesEvent: this.#followsEvents ? eventMatcherOf(filter) : undefined,
    });
  }

  /** How far it is up to date now. */
  get state(): State {
    return this.#subscription.state;
  }

  /** Why it is not live; null when it is. */
  get reason(): Reason | null {
    return this.#subscription.reason;
  }

  /**
   * Everything up to this seq was handed out: save it, and continue with `afterSeq`. A signal is
   * handed out to `onSignal` when what it returned is settled.
   */
  get cursor(): number | null {
    const inHand = this.#inHand;
    return inHand?.kind === "signal" ? inHand.signal.seq - 1 : this.#subscription.cursor;
  }

  /** The same for events, by their own seq: continue with `afterEventSeq`. */
  get eventCursor(): number | null {
    const inHand = this.#inHand;
    return inHand?.kind === "event" ? inHand.event.seq - 1 : this.#subscription.eventCursor;
  }

  /** Begin; return once it is settled where following begins, so that all stored later is seen. */
  async start(): Promise<void> {
    this.#run();
    const isSettled = () =>
      this.cursor !== null && (!this.#followsEvents || this.eventCursor !== null);
    while (!isSettled() && !this.#isClosed) await this.#changed.next();
    if (this.#error !== null) throw this.#error;
  }

  /** End; what was not taken stays behind the cursor. */
  async close(): Promise<void> {
    this.#subscription.close();
    this.#end();
    await this.#running;
  }

  /** The next signal as soon as there is one; done after close(). */
  async next(): Promise<IteratorResult<StoredSignal, undefined>> {
    if (this.#followsEvents) throw new TypeError("Cannot take signals alone: iterate over news().");
    const next = await this.#next();
    return next?.kind === "signal"
      ? { done: false, value: next.signal }
      : { done: true, value: undefined };
  }

  /** Signals and, if these are followed, events: each once, an event after its signals. */
  async *news(): AsyncGenerator<News, void, void> {
    for (let next; (next = await this.#next()) !== undefined;) yield next;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #next(): Promise<News | undefined> {
    const { onSignal, onEvent } = this.#options;
    if (onSignal !== undefined || onEvent !== undefined) {
      throw new TypeError("Cannot iterate: onSignal and onEvent get all.");
    }
    this.#run();
    const next = await this.#take();
    if (next === undefined && this.#error !== null) throw this.#error;
    return next;
  }

  #run(): void {
    if (this.#running !== null) return;
    const work = [
      this.#stayJoined(),
      this.#keepAsking((unanswered) => this.#fillGap(unanswered)),
      this.#keepAsking((unanswered) => this.#fillEventGap(unanswered)),
      this.#keepAsking(() => this.#subscription.checkWanted ? this.#check() : null),
    ];
    this.#running = Promise.all(work.map((one) => one.catch((error) => this.#fail(error))));
    // Nobody waits for it: a callback may take for ever, and may close the subscriber itself.
    this.#callBack();
  }

  async #stayJoined(): Promise<void> {
    const token = await this.#tokenSoonerOrLater();
    if (token === null) return;
    const owner = this.#options.ownChannel
      ? `trader:${this.#filter.traders![0]!.toLowerCase()}`
      : `account:${accountOf(token)}`;
    this.#channel = new LiveChannel(`${owner}:signals`, this.#options, {
      onJoined: () => this.#note(() => this.#subscription.joined()),
      onReplicationReady: () => this.#note(() => this.#subscription.replicationReady()),
      onLost: (loss) => this.#takeInLoss(loss),
      onBroadcast: (payload) =>
        this.#takeIn(() => {
          const message = broadcastOf(payload);
          this.#note(() => this.#subscription.broadcast(message));
        }),
      onEventBroadcast: (payload) =>
        this.#followsEvents && this.#takeIn(() => {
          const message = eventBroadcastOf(payload);
          this.#note(() => this.#subscription.eventBroadcast(message));
        }),
      onUnreadable: (error) => this.#checkInstead(error),
    });
    for (let attempt = 1; !this.#isClosed; attempt++) {
      this.#wasLive = false;
      await this.#channel.hold();
      if (this.#wasLive) attempt = 1;
      await this.#pause(attempt, leastPauseMs(attempt, this.#lastLoss));
    }
  }

  async #tokenSoonerOrLater(): Promise<string | null> {
    for (let attempt = 1; !this.#isClosed; attempt++) {
      try {
        return await unlessAborted(
          this.#options.accessToken({ refresh: false }),
          this.#closing.signal,
        );
      } catch (error) {
        if (this.#isClosed) break;
        this.#problem(`Cannot get an access token yet: ${error}`);
        await this.#pause(attempt);
      }
    }
    return null;
  }

  /** Ask the database again and again: `askOnce` answers null when it has nothing to ask. */
  async #keepAsking(askOnce: (unanswered: number) => Promise<void> | null): Promise<void> {
    for (let attempt = 1; !this.#isClosed; attempt++) {
      try {
        // At once: a change between looking and waiting would go unnoticed.
        await (askOnce(attempt - 1) ?? this.#changed.next());
        attempt = 0;
      } catch (error) {
        if (this.#isClosed) return;
        if (!(error instanceof UnansweredError)) throw error;
        this.#problem(error.message);
        await this.#pause(attempt, error.retryAfterMs);
      }
    }
  }

  #fillGap(unanswered: number): Promise<void> | null {
    const query = this.#subscription.nextQuery();
    const askedAt = this.#now;
    return query && this.#service.page(this.#filter, query, unanswered, this.#closing.signal)
      .then((page) => this.#note(() => this.#subscription.page(query, page, askedAt)));
  }

  #fillEventGap(unanswered: number): Promise<void> | null {
    const query = this.#subscription.nextEventQuery();
    const askedAt = this.#now;
    return query && this.#service.eventPage(this.#filter, query, unanswered, this.#closing.signal)
      .then((page) => this.#note(() => this.#subscription.eventPage(query, page, askedAt)));
  }

  async #check(): Promise<void> {
    const askedAt = this.#now;
    const head = await this.#service.head(this.#closing.signal);
    // An answer that took long does not tell well what time it is in the database.
    const databaseTime = this.#now < askedAt + PROMPT_MS ? head.databaseTime : null;
    // A little earlier than the service says, each by another time: not all at once.
    const check_interval_ms = head.check_interval_ms && head.check_interval_ms * this.#checkEarly;
    const told = { ...head, check_interval_ms, databaseTime };
    this.#note(() => this.#subscription.head(told, askedAt));
  }

  async #callBack(): Promise<void> {
    const { onSignal, onEvent } = this.#options;
    if (onSignal === undefined && onEvent === undefined) return;
    for (let news; (news = await this.#take()) !== undefined;) {
      this.#inHand = news;
      try {
        if (news.kind === "signal") await onSignal?.(news.signal);
        else await onEvent?.(news.event);
      } catch (error) {
        const { seq } = news.kind === "signal" ? news.signal : news.event;
        const name = news.kind === "signal" ? "onSignal" : "onEvent";
        this.#problem(`${name} threw at seq ${seq}: ${error}`);
      }
      // After an error that cannot pass, what was fetched before it is still handed out.
      if (this.reason !== "closed_by_user") this.#inHand = null;
    }
  }

  /** The next signal or event as soon as there is one; undefined when there will be none. */
  async #take(): Promise<News | undefined> {
    while (!this.#subscription.hasNext && !this.#isClosed) await this.#changed.next();
    if (this.reason === "closed_by_user") return undefined;
    const news = this.#subscription.take();
    this.#tell(); // There may be room for more now.
    return news;
  }

  #takeInLoss(loss: Loss): void {
    const { reason, said } = this.#lastLoss = loss;
    if (!this.#isClosed) this.#problem(`The live channel is lost (${said}); joining again`);
    this.#note(() => this.#subscription.left(reason));
  }

  #takeIn(read: () => void): void {
    try {
      read();
    } catch (error) {
      this.#checkInstead(error);
    }
  }

  #checkInstead(error: unknown): void {
    this.#problem(`Cannot read a message, so the database is asked: ${error}`);
    this.#note(() => this.#subscription.checkDue());
  }

  /** Let the machine know what time it is and what happened, and act on what it makes of that. */
  #note(happened: () => void): void {
    this.#subscription.tick(this.#now);
    happened();
    this.#tell();
  }

  #tell(): void {
    this.#changed.beat();
    clearTimeout(this.#timer);
    const { state, reason, wakeAt, rejoinWanted } = this.#subscription;
    if (rejoinWanted && reason === "broadcasts_missing") {
      this.#channel?.leave(reason, "signals are stored that it did not tell of");
    } else if (rejoinWanted) {
      this.#channel?.leave(
        "connection_lost",
        "the server did not say that it follows the database",
      );
    }
    if (state !== "closed" && wakeAt < Infinity) {
      this.#timer = setTimeout(() => this.#note(() => {}), wakeAt - this.#now);
    }
    if (state === this.#told[0] && reason === this.#told[1]) return;
    this.#told = [state, reason];
    if (state === "live") this.#wasLive = true;
    try {
      this.#options.onState?.(state, reason);
    } catch (error) {
      this.#problem(`onState threw: ${error}`);
    }
  }

  get #now(): number {
    return performance.now() - this.#madeAt;
  }

  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  #fail(error: unknown): void {
    if (this.#isClosed) return;
    this.#problem(`Cannot go on: ${error}`);
    this.#error = error;
    this.#subscription.close("failed");
    this.#end();
  }

  #end(): void {
    this.#closing.abort();
    this.#channel?.leave("connection_lost", "closed");
    this.#tell();
  }

  #problem(message: string): void {
    (this.#options.onProblem ?? console.warn)(message);
  }

  #pause(attempt: number, leastMs = 0): Promise<void> {
    const ms = Math.max(leastMs, pauseBefore(attempt, FIRST_PAUSE_MS, LONGEST_PAUSE_MS));
    return delay(ms, this.#closing.signal);
  }
}

function checkOptions(options: SubscriberOptions): void {
  const { filter = {}, ownChannel, afterSeq = 0, afterEventSeq = 0 } = options;
  const { bufferSignals = 1, checkIntervalMs = 1, events, onSignal, onEvent } = options;
  checkFilter(filter);
  if (ownChannel && filter.traders?.length !== 1) {
    throw new RangeError("Cannot use an own channel: the filter has to name its one trader.");
  }
  if (!(afterSeq >= 0 && afterEventSeq >= 0)) {
    const seq = Math.min(afterSeq, afterEventSeq);
    throw new RangeError(`Cannot follow after seq ${seq}: the first one is 1.`);
  }
  if (ownChannel && (events || onEvent)) {
    throw new RangeError("Cannot follow events on a trader's own channel: it has none.");
  }
  if (options.afterEventSeq !== undefined && !events && !onEvent) {
    throw new RangeError("Cannot use afterEventSeq without events or onEvent.");
  }
  if (events && onSignal && !onEvent) {
    throw new RangeError("Cannot use events with onSignal alone: pass onEvent, too.");
  }
  if (!(bufferSignals >= 1 && checkIntervalMs > 0)) {
    throw new RangeError("Cannot follow: bufferSignals and checkIntervalMs have to be above 0.");
  }
}
