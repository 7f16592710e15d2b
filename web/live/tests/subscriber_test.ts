/// <reference lib="deno.ns" />
/** What the subscriber says without a stack; the rest is in tests/web. */

import { deepStrictEqual, rejects, strictEqual, throws } from "node:assert/strict";
import { SignalSubscriber, type SubscriberOptions } from "../src/subscriber.ts";

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
  { ownChannel: true, filter: { traders: ["one", "two"] } },
];
for (const options of MISTAKES) {
  Deno.test(`${JSON.stringify(options)} is refused`, () =>
    throws(() => subscriber(options), RangeError));
}

Deno.test("it cannot be iterated when a callback gets the signals", async () => {
  await rejects(subscriber({ onSignal: () => {} }).next(), TypeError);
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

function unreachable(): Promise<Response> {
  return Promise.reject(new TypeError("the network is away"));
}
