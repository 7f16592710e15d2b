/// <reference lib="deno.ns" />
/** The pure machine does what the scenarios of live delivery say. */

import { deepStrictEqual, ok } from "node:assert/strict";
import type { SeqQuery } from "../src/coverage.ts";
import { type LossReason, Subscription } from "../src/subscription.ts";
import { signalAt } from "./example_signal.ts";
import { CORE, type CoreScenario, type Step } from "./scenarios.ts";

/** A subscription that is told the steps of a scenario. */
class Machine {
  readonly #subscription: Subscription;
  readonly #asked: SeqQuery[] = [];
  #now = 0;
  #taken: number[] = [];

  constructor(options: Readonly<Record<string, unknown>>) {
    const {
      wanted,
      after_seq,
      buffer_signals,
      page_size,
      check_interval,
      own_channel,
      ...unknown
    } = options as Record<string, number> & { wanted?: number[]; own_channel?: boolean };
    deepStrictEqual(unknown, {}, "an option of the scenario is not known here");
    this.#subscription = new Subscription(({ seq }) => wanted?.includes(seq) ?? true, {
      afterSeq: after_seq ?? undefined,
      bufferSignals: buffer_signals,
      pageSize: page_size,
      checkIntervalMs: check_interval === undefined ? undefined : check_interval * 1000,
      ownChannel: own_channel,
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
        return this.#page(given.signals, given.last_seq, given.more);
      case "head":
        return this.#head(given.last_seq, given.broadcast_interval_ms ?? 0);
      case "broadcast":
        return this.#subscription.broadcast({ ...given, signals: given.signals?.map(signalAt) });
      case "take":
        return this.#take(given.count);
      case "go_live":
        this.#subscription.joined();
        this.#subscription.replicationReady();
        this.#page([], given.last_seq, false);
        return this.#head(given.last_seq, 0);
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
      case "query":
        return this.#query();
      case "taken":
        this.#take(this.#subscription.buffered);
        return this.#taken.splice(0);
      default:
        throw new Error(`unknown expectation ${name}`);
    }
  }

  #query(): unknown {
    const query = this.#subscription.nextQuery();
    if (query === null) return null;
    const afterSeq = query.afterSeq === Number.MAX_SAFE_INTEGER ? null : query.afterSeq;
    return { after_seq: afterSeq, page_size: query.pageSize };
  }

  #ask(): void {
    const query = this.#subscription.nextQuery();
    ok(query, "no query is wanted");
    this.#asked.push(query);
  }

  #page(seqs: readonly number[], last_seq: number, more: boolean): void {
    if (this.#asked.length === 0) this.#ask();
    const page = { signals: seqs.map(signalAt), next_cursor: more ? "more" : null, last_seq };
    this.#subscription.page(this.#asked.shift()!, page);
  }

  #head(last_seq: number, broadcast_interval_ms: number): void {
    this.#subscription.head({ last_seq, broadcast_interval_ms });
  }

  #take(count: number): void {
    for (let taken = 0; taken < count; taken++) {
      const signal = this.#subscription.take();
      ok(signal, "there is no signal to take");
      this.#taken.push(signal.seq);
    }
  }
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
