/** Follow the signals of an account live: each once, in the order of storing. */

import type { RealtimeClientOptions } from "@supabase/realtime-js";
import { type AccessToken, accountOf } from "./access_token.ts";
import { LiveChannel } from "./channel.ts";
import { checkFilter, matcherOf, type SignalFilter } from "./filter.ts";
import type { Loss } from "./loss.ts";
import { Service, ServiceError, UnansweredError } from "./service.ts";
import { type Reason, type State, Subscription } from "./subscription.ts";
import { delay, pauseBefore, Pulse, unlessAborted } from "./waiting.ts";
import { broadcastOf, type StoredSignal } from "./wire.ts";

export type { AccessToken, Reason, SignalFilter, State, StoredSignal };
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
  /** So many are held for a slow reader; beyond it they are fetched again later, never lost. */
  readonly bufferSignals?: number;
  /** How long nothing may prove that it is up to date before the database is asked. */
  readonly checkIntervalMs?: number;
  /** Called with each signal, one at a time; what it throws is told to `onProblem`. */
  readonly onSignal?: (signal: StoredSignal) => unknown;
  readonly onState?: (state: State, reason: Reason | null) => void;
  /** Told of what passes or is mended by itself, for a log; `console.warn` without it. */
  readonly onProblem?: (message: string) => void;
  readonly fetch?: typeof fetch;
  /** A WebSocket, where there is none built in. */
  readonly transport?: RealtimeClientOptions["transport"];
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 3000;
/** The limits of a project are averages over time. */
const LONGEST_PAUSE_AT_LIMIT_MS = 15_000;

/**
 * Follows the signals of one account.
 *
 * Take them by `onSignal`, or iterate; not both. Broken connections are renewed without end. An
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
  /** The seq that `onSignal` has not done with. */
  #inHand: number | null = null;
  #wasLive = false;
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
    // A little different for each, so that many do not ask at once.
    const checkIntervalMs = (options.checkIntervalMs ?? 2000) * (0.9 + Math.random() / 10);
    this.#subscription = new Subscription(matcherOf(filter), { ...options, checkIntervalMs });
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
    return this.#inHand === null ? this.#subscription.cursor : this.#inHand - 1;
  }

  /** Begin; return once it is settled where following begins, so that all stored later is seen. */
  async start(): Promise<void> {
    this.#run();
    while (this.cursor === null && !this.#isClosed) await this.#changed.next();
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
    if (this.#options.onSignal !== undefined) {
      throw new TypeError("Cannot iterate: onSignal gets the signals.");
    }
    this.#run();
    const value = await this.#take();
    if (value !== undefined) return { done: false, value };
    if (this.#error !== null) throw this.#error;
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #run(): void {
    if (this.#running !== null) return;
    const work = [
      this.#stayJoined(),
      this.#keepAsking(() => this.#fillGap()),
      this.#keepAsking(() => this.#check()),
    ];
    this.#running = Promise.all(work.map((one) => one.catch((error) => this.#fail(error))));
    // Nobody waits for it: a callback may take for ever, and may close the subscriber itself.
    this.#callBack(this.#options.onSignal);
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
      onBroadcast: (payload) => this.#takeInBroadcast(payload),
      onUnreadable: (error) => this.#checkInstead(error),
    });
    for (let attempt = 1; !this.#isClosed; attempt++) {
      this.#wasLive = false;
      await this.#channel.hold();
      if (this.#wasLive) attempt = 1;
      const limitMs = Math.min(1000 * 2 ** attempt, LONGEST_PAUSE_AT_LIMIT_MS);
      await this.#pause(attempt, this.reason === "rate_limited" ? limitMs : 0);
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

  /** Ask the database again and again: `askOnce` says whether it had anything to ask. */
  async #keepAsking(askOnce: () => Promise<boolean>): Promise<void> {
    for (let attempt = 1; !this.#isClosed; attempt++) {
      try {
        if (!await askOnce()) await this.#changed.next();
        attempt = 0;
      } catch (error) {
        if (this.#isClosed) return;
        if (!(error instanceof UnansweredError)) throw error;
        this.#problem(error.message);
        await this.#pause(attempt, error.retryAfterMs);
      }
    }
  }

  async #fillGap(): Promise<boolean> {
    const query = this.#subscription.nextQuery();
    if (query === null) return false;
    const page = await this.#service.page(this.#filter, query, this.#closing.signal);
    this.#note(() => this.#subscription.page(query, page));
    return true;
  }

  async #check(): Promise<boolean> {
    if (!this.#subscription.checkWanted) return false;
    const head = await this.#service.head(this.#closing.signal);
    this.#note(() => this.#subscription.head(head));
    return true;
  }

  async #callBack(onSignal: SubscriberOptions["onSignal"]): Promise<void> {
    if (onSignal === undefined) return;
    for (let signal; (signal = await this.#take()) !== undefined;) {
      this.#inHand = signal.seq;
      try {
        await onSignal(signal);
      } catch (error) {
        this.#problem(`onSignal threw at seq ${signal.seq}: ${error}`);
      }
      // After an error that cannot pass, what was fetched before it is still handed out.
      if (this.reason !== "closed_by_user") this.#inHand = null;
    }
  }

  /** The next signal as soon as there is one; undefined when there will be none. */
  async #take(): Promise<StoredSignal | undefined> {
    while (this.#subscription.buffered === 0 && !this.#isClosed) await this.#changed.next();
    if (this.reason === "closed_by_user") return undefined;
    const signal = this.#subscription.take();
    this.#tell(); // There may be room for more now.
    return signal;
  }

  #takeInLoss({ reason, said }: Loss): void {
    if (!this.#isClosed) this.#problem(`The live channel is lost (${said}); joining again`);
    this.#note(() => this.#subscription.left(reason));
  }

  #takeInBroadcast(payload: unknown): void {
    try {
      const message = broadcastOf(payload);
      this.#note(() => this.#subscription.broadcast(message));
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
  const { filter = {}, ownChannel, afterSeq = 0, bufferSignals = 1, checkIntervalMs = 1 } = options;
  checkFilter(filter);
  if (ownChannel && filter.traders?.length !== 1) {
    throw new RangeError("Cannot use an own channel: the filter has to name its one trader.");
  }
  if (!(afterSeq >= 0)) {
    throw new RangeError(`Cannot follow after seq ${afterSeq}: the first one is 1.`);
  }
  if (!(bufferSignals >= 1 && checkIntervalMs > 0)) {
    throw new RangeError("Cannot follow: bufferSignals and checkIntervalMs have to be above 0.");
  }
}
