/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { broadcastOf, headOf, pageOf, UnreadableError } from "../src/wire.ts";
import { signalAt } from "./example_signal.ts";

Deno.test("a broadcast is read with and without signals; what else it has is left out", () => {
  const signals = [signalAt(4)];
  const range = { first_seq: 4, last_seq: 4 };
  deepStrictEqual(broadcastOf({ ...range, signals, id: "x", count: 1 }), { ...range, signals });
  deepStrictEqual(broadcastOf({ ...range }), { ...range, signals: null });
});

Deno.test("a page is read", () => {
  const page = { signals: [signalAt(1)], next_cursor: null, last_seq: 9 };
  deepStrictEqual(pageOf(page), page);
});

Deno.test("the head says how often the account is broadcast at most, 0 when it does not say", () => {
  strictEqual(headOf({ last_seq: 3, broadcast_interval_ms: 800 }).broadcast_interval_ms, 800);
  deepStrictEqual(headOf({ last_seq: 3 }), { last_seq: 3, broadcast_interval_ms: 0 });
});

const { symbol: _, ...withoutSymbol } = signalAt(1);
const UNREADABLE: Record<string, () => unknown> = {
  "no object": () => broadcastOf(null),
  "a broadcast without a range": () => broadcastOf({ first_seq: 1 }),
  "a range that runs backwards": () => broadcastOf({ first_seq: 2, last_seq: 1 }),
  "a seq that a double cannot hold": () => broadcastOf({ first_seq: 1, last_seq: 2 ** 53 }),
  "signals that are no list": () => broadcastOf({ first_seq: 1, last_seq: 1, signals: {} }),
  "a signal without a symbol": () =>
    broadcastOf({ first_seq: 1, last_seq: 1, signals: [withoutSymbol] }),
  "a page without last_seq": () => pageOf({ signals: [], next_cursor: null }),
  "a page without next_cursor": () => pageOf({ signals: [], last_seq: 0 }),
  "a page without signals": () => pageOf({ next_cursor: null, last_seq: 0 }),
  "a head without last_seq": () => headOf({}),
};
for (const [what, read] of Object.entries(UNREADABLE)) {
  Deno.test(`${what} is refused`, () => throws(read, UnreadableError));
}
