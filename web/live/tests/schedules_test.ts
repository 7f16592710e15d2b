/// <reference lib="deno.ns" />
/** Whatever is dropped, repeated, reordered or lost: each signal once, in order, and live again. */

import { deepStrictEqual, ok, strictEqual } from "node:assert/strict";
import type { SeqQuery } from "../src/coverage.ts";
import { Subscription } from "../src/subscription.ts";
import type { Broadcast, Head, Page } from "../src/wire.ts";
import { signalAt } from "./example_signal.ts";

const SCHEDULES = 300;
const STEPS = 120;

/** A sequence of numbers below 1 that its seed tells (mulberry32). */
function randomFrom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What the service would do: keep signals, announce them, answer queries from a snapshot. */
class Account {
  lastSeq = 0;

  store(count: number, carried: boolean): Broadcast {
    const first = this.lastSeq + 1;
    this.lastSeq += count;
    const signals = carried ? this.#signals(first, this.lastSeq) : null;
    return { first_seq: first, last_seq: this.lastSeq, sentAt: -Infinity, signals };
  }

  answer({ afterSeq, pageSize }: SeqQuery): Page {
    const last = Math.min(this.lastSeq, afterSeq + pageSize);
    const next_cursor = last < this.lastSeq ? "more" : null;
    return { signals: this.#signals(afterSeq + 1, last), next_cursor, last_seq: this.lastSeq };
  }

  get head(): Head {
    return {
      last_seq: this.lastSeq,
      last_event_seq: 0,
      broadcast_interval_ms: 0,
      check_interval_ms: 2000,
      databaseTime: null,
    };
  }

  #signals(first: number, last: number) {
    return Array.from({ length: Math.max(0, last - first + 1) }, (_, n) => signalAt(first + n));
  }
}

function run(seed: number): void {
  const random = randomFrom(seed);
  const upTo = (most: number) => 1 + Math.floor(random() * most);
  const account = new Account();
  const subscription = new Subscription(() => true, {
    afterSeq: 0,
    bufferSignals: upTo(20),
    pageSize: upTo(5),
  });
  const seen: number[] = [];
  const inTheAir: Broadcast[] = [];
  const asked: [SeqQuery, Page][] = [];
  let now = 0;

  const take = (most: number) => {
    while (most-- > 0) {
      const news = subscription.take();
      if (news?.kind !== "signal") return;
      seen.push(news.signal.seq);
    }
  };
  const ask = () => {
    const query = subscription.nextQuery();
    if (query !== null) asked.push([query, account.answer(query)]);
  };
  const anything: readonly (() => void)[] = [
    () => inTheAir.push(account.store(upTo(4), random() < 0.7)),
    () => subscription.joined(),
    () => subscription.replicationReady(),
    () => subscription.left("connection_lost"),
    () => subscription.tick(now += upTo(3000)),
    () => subscription.head(account.head),
    () =>
      inTheAir.splice(Math.floor(random() * inTheAir.length), 1).map((one) => {
        subscription.broadcast(one);
        if (random() < 0.2) inTheAir.push(one); // It comes again.
      }),
    () => inTheAir.splice(0, 1), // It is lost.
    ask,
    () =>
      asked.splice(Math.floor(random() * asked.length), 1).map((one) => subscription.page(...one)),
    () => take(upTo(3)),
  ];
  for (let step = 0; step < STEPS; step++) {
    anything[Math.floor(random() * anything.length)]!();
    ok(subscription.cursor! <= account.lastSeq, "the cursor is beyond what is stored");
  }

  // The end of all faults.
  subscription.joined();
  subscription.replicationReady();
  for (let round = 0; round < 1000 && subscription.state !== "live"; round++) {
    subscription.tick(now += 500);
    take(Infinity);
    for (let query; (query = subscription.nextQuery());) {
      subscription.page(query, account.answer(query));
      take(Infinity);
    }
    subscription.head(account.head);
  }
  take(Infinity);
  strictEqual(subscription.state, "live");
  deepStrictEqual(seen, Array.from({ length: account.lastSeq }, (_, n) => n + 1));
}

Deno.test(`${SCHEDULES} schedules of faults end live, with each signal once and in order`, () => {
  for (let seed = 1; seed <= SCHEDULES; seed++) {
    try {
      run(seed);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});
