/// <reference lib="deno.ns" />
/** The pure machine does what the scenarios of live delivery say. */

import { deepStrictEqual, ok } from "node:assert/strict";
import type { SeqQuery } from "../src/coverage.ts";
import { type LossReason, Subscription } from "../src/subscription.ts";
import type { FoundEvent, Head } from "../src/wire.ts";
import { eventAt, signalAt } from "./example_signal.ts";
import { CORE, type CoreScenario, type Step } from "./scenarios.ts";

/** The seq of an event, and of the signal, or of the first and the last of an expiry. */
type EventTold = readonly [number, number | readonly [number, number]];

interface CoreOptions extends Record<string, unknown> {
  readonly wanted?: readonly number[];
  readonly after_seq?: number;
  readonly buffer_signals?: number;
  readonly page_size?: number;
  readonly check_interval?: number | null;
  readonly own_channel?: boolean;
  readonly events?: boolean;
  readonly after_event_seq?: number;
  readonly unclear_events?: readonly number[];
  readonly gone_events?: readonly number[];
}

/** A subscription that is told the steps of a scenario. */
class Machine {
  readonly #subscription: Subscription;
  readonly #asked: SeqQuery[] = [];
  /** The events that a page brings with their signals. */
  readonly #withSignal: readonly number[];
  #now = 0;
  #taken: (number | string)[] = [];

  constructor(options: Readonly<Record<string, unknown>>) {
    const {
      wanted,
      after_seq,
      buffer_signals,
      page_size,
      check_interval = 2,
      own_channel,
      events,
      after_event_seq,
      unclear_events = [],
      gone_events = [],
      ...unknown
    } = options as CoreOptions;
    deepStrictEqual(unknown, {}, "an option of the scenario is not known here");
    this.#withSignal = unclear_events.filter((seq) => !gone_events.includes(seq));
    const wants = (seq: number) => wanted?.includes(seq) ?? true;
    this.#subscription = new Subscription(({ seq }) => wants(seq), {
      afterSeq: after_seq ?? undefined,
      bufferSignals: buffer_signals,
      pageSize: page_size,
      checkIntervalMs: check_interval === null ? undefined : check_interval * 1000,
      ownChannel: own_channel,
      matchesEvent: events
        ? (event) =>
          unclear_events.includes(event.seq) && !event.signal
            ? null
            : event.expired_seqs !== null || wants(event.signal_seq)
        : undefined,
      afterEventSeq: after_event_seq,
    });
  }

  do(step: Step): void {
    // deno-lint-ignore no-explicit-any -- the steps are JSON of many shapes
    const given = step as any;
    switch (step.do) {
      case "joined":
        return this.#subscription.joined();
      case "replication_ready":
        return this.#subscription.replicationReady();
      case "check_due":
        return this.#subscription.checkDue();
      case "close":
        return this.#subscription.close();
      case "fail":
        return this.#subscription.close("failed");
      case "left":
        return this.#subscription.left(given.reason as LossReason);
      case "tick":
        return this.#subscription.tick(this.#now += given.seconds * 1000);
      case "ask":
        return this.#ask();
      case "page":
        return this.#page(given.signals, given.last_seq, given.more, given.asked_ago);
      case "head":
        return this.#head(given);
      case "broadcast":
        return this.#subscription.broadcast({
          ...given,
          sentAt: this.#now - 1000 * (given.late ?? 0),
          signals: given.signals?.map(signalAt),
        });
      case "events_broadcast":
        return this.#subscription.eventBroadcast({
          ...given,
          sentAt: this.#now - 1000 * (given.late ?? 0),
          changes: given.events && eventsAt(given.events),
        });
      case "events_page":
        return this.#eventsPage(given.events, given.last_seq);
      case "take":
        return this.#take(given.count);
      case "go_live":
        this.#subscription.joined();
        this.#subscription.replicationReady();
        this.#page([], given.last_seq, false);
        if (this.#subscription.nextEventQuery()) this.#eventsPage([], given.last_event_seq ?? 0);
        return this.#head(given);
      default:
        throw new Error(`unknown step ${step.do}`);
    }
  }

  found(name: string): unknown {
    switch (name) {
      case "state":
        return this.#subscription.state;
      case "reason":
        return this.#subscription.reason;
      case "cursor":
        return this.#subscription.cursor;
      case "buffered":
        return this.#subscription.buffered;
      case "check":
        return this.#subscription.checkWanted;
      case "rejoin":
        return this.#subscription.rejoinWanted;
      case "event_cursor":
        return this.#subscription.eventCursor;
      case "up_to_date":
        return this.#subscription.isUpToDate;
      case "query":
        return shown(this.#subscription.nextQuery());
      case "events_query":
        return shown(this.#subscription.nextEventQuery());
      case "taken":
        while (this.#subscription.hasNext) this.#take(1);
        return this.#taken.splice(0);
      default:
        throw new Error(`unknown expectation ${name}`);
    }
  }

  #ask(): void {
    const query = this.#subscription.nextQuery();
    ok(query, "no query is wanted");
    this.#asked.push(query);
  }

  #page(seqs: readonly number[], last_seq: number, more: boolean, askedAgo = 0): void {
    if (this.#asked.length === 0) this.#ask();
    const page = { signals: seqs.map(signalAt), next_cursor: more ? "more" : null, last_seq };
    this.#subscription.page(this.#asked.shift()!, page, this.#now - 1000 * askedAgo);
  }

  #eventsPage(told: readonly EventTold[], last_seq: number): void {
    const query = this.#subscription.nextEventQuery();
    ok(query, "no query of events is wanted");
    const events = eventsAt(told).map((event) =>
      this.#withSignal.includes(event.seq)
        ? { ...event, signal: signalAt(event.signal_seq) }
        : event
    );
    this.#subscription.eventPage(query, { events, last_seq }, this.#now);
  }

  #head(given: Partial<Head> & { readonly asked_ago?: number }): void {
    this.#subscription.head({
      last_seq: given.last_seq ?? 0,
      last_event_seq: given.last_event_seq ?? 0,
      broadcast_interval_ms: given.broadcast_interval_ms ?? 0,
      check_interval_ms: given.check_interval_ms ?? null,
      databaseTime: this.#now,
    }, this.#now - 1000 * (given.asked_ago ?? 0));
  }

  #take(count: number): void {
    for (let taken = 0; taken < count; taken++) {
      const news = this.#subscription.take();
      ok(news, "there is nothing to take");
      this.#taken.push(news.kind === "signal" ? news.signal.seq : `e${news.event.seq}`);
    }
  }
}

function shown(query: SeqQuery | null): unknown {
  if (query === null) return null;
  const afterSeq = query.afterSeq === Number.MAX_SAFE_INTEGER ? null : query.afterSeq;
  return { after_seq: afterSeq, page_size: query.pageSize };
}

function eventsAt(told: readonly EventTold[]): FoundEvent[] {
  return told.map(([seq, of]) => eventAt(seq, of));
}

function run({ options = {}, steps }: CoreScenario): void {
  const machine = new Machine(options);
  for (const [index, step] of steps.entries()) {
    const where = `step ${index + 1}, ${JSON.stringify(step)}`;
    if (step.expect === undefined) {
      machine.do(step);
      continue;
    }
    // In the order of the file: what is taken changes the query that follows.
    const found: Record<string, unknown> = {};
    for (const name of Object.keys(step.expect)) found[name] = machine.found(name);
    deepStrictEqual(found, step.expect, where);
  }
}

for (const scenario of CORE) Deno.test(`core: ${scenario.name}`, () => run(scenario));
