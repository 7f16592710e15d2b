/// <reference lib="deno.ns" />
/** What the subscriber says without a stack; the rest is in tests/web. */

import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { SignalSubscriber, type SubscriberOptions } from "../src/subscriber.ts";
import { delay } from "../src/waiting.ts";
import { signalAt } from "./example_signal.ts";

function subscriber(options: Partial<SubscriberOptions> = {}): SignalSubscriber {
  return new SignalSubscriber({
    url: "http://localhost",
    key: "a key",
    accessToken: () => Promise.reject(new Error("nobody is signed in")),
    onProblem: () => {},
    ...options,
  });
}

const MISTAKES: Partial<SubscriberOptions>[] = [
  { afterSeq: -1 },
  { afterSeq: NaN },
  { bufferSignals: 0 },
  { checkIntervalMs: 0 },
  { filter: { symbols: [] } },
  { ownChannel: true },
  { ownChannel: true, filter: { traders: ["one"] }, events: true },
  { afterEventSeq: 0 },
  { afterEventSeq: -1, events: true },
  { ownChannel: true, filter: { traders: ["one", "two"] } },
];
for (const options of MISTAKES) {
  Deno.test(`${JSON.stringify(options)} is refused`, () =>
    throws(() => subscriber(options), RangeError));
}

Deno.test("it cannot be iterated when a callback gets the signals", async () => {
  await rejects(subscriber({ onSignal: () => {} }).next(), TypeError);
});

Deno.test("with events, signals alone cannot be taken, nor events be left out of callbacks", async () => {
  await rejects(subscriber({ events: true }).next(), TypeError);
  await rejects(subscriber({ onEvent: () => {} }).news().next(), TypeError);
  throws(() => subscriber({ events: true, onSignal: () => {} }), RangeError);
});

Deno.test("closed while nobody is signed in, it ends whoever waits for it", async () => {
  const told: unknown[] = [];
  const live = subscriber({ onState: (...state) => told.push(state) });
  const waiting = [live.start(), live.next()];
  await live.close();
  deepStrictEqual(await Promise.all(waiting), [undefined, { done: true, value: undefined }]);
  deepStrictEqual(told, [["closed", "closed_by_user"]]);
});

Deno.test("a token that names no user closes it, and is thrown to whoever waits for it", async () => {
  const live = subscriber({ accessToken: () => Promise.resolve("x.e30.x"), fetch: unreachable });
  await rejects(live.next(), /not that of a signed-in user/);
  strictEqual(live.reason, "failed");
  await live.close();
});

Deno.test("what was fetched before an error that cannot pass is handed out, and the cursor is after it", async () => {
  const seen: number[] = [];
  const live = subscriber({
    accessToken: () => Promise.resolve(`x.${btoa('{"sub":"an account"}')}.x`),
    fetch: onePageOfTwo(),
    afterSeq: 0,
    onSignal: async ({ seq }) => {
      seen.push(seq);
      while (live.state !== "closed") await delay(5);
    },
  });
  await live.start();
  while (seen.length < 2) await delay(5);
  await live.close();
  strictEqual(live.reason, "failed");
  deepStrictEqual([seen, live.cursor], [[1, 2], 2]);
});

/** A service that gives a page with more to come, and refuses to give the next. */
function onePageOfTwo(): typeof fetch {
  let asked = 0;
  return (address) => {
    const isRefused = String(address).includes("query-signals") && asked++ > 0;
    const page = { signals: [signalAt(1), signalAt(2)], next_cursor: "more", last_seq: 9 };
    return Promise.resolve(
      isRefused ? Response.json({ code: "forbidden" }, { status: 403 }) : Response.json(page),
    );
  };
}

function unreachable(): Promise<Response> {
  return Promise.reject(new TypeError("the network is away"));
}
