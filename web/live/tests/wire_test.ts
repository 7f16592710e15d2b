/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import {
  broadcastOf,
  eventBroadcastOf,
  eventPageOf,
  headOf,
  lastSignalSeqOf,
  pageOf,
  UnreadableError,
} from "../src/wire.ts";
import { eventAt, signalAt } from "./example_signal.ts";

Deno.test("a broadcast is read with and without signals; what else it has is left out", () => {
  const signals = [signalAt(4)];
  const range = { first_seq: 4, last_seq: 4 };
  const sent = { ...range, broadcast_at: "2026-01-05T00:00:00.25+00:00", id: "x", count: 1 };
  const sentAt = Date.UTC(2026, 0, 5) + 250;
  deepStrictEqual(broadcastOf({ ...sent, signals }), { ...range, sentAt, signals });
  deepStrictEqual(broadcastOf(sent), { ...range, sentAt, signals: null });
  strictEqual(broadcastOf(range).sentAt, -Infinity, "without its time it counts as late");
});

Deno.test("a broadcast of events is read, and a page of them", () => {
  const events = [eventAt(1, 4), eventAt(2, [4, 6])];
  const { changes } = eventBroadcastOf({ first_seq: 1, last_seq: 2, changes: events });
  deepStrictEqual(changes, events);
  strictEqual(eventBroadcastOf({ first_seq: 1, last_seq: 2 }).changes, null);
  deepStrictEqual(eventPageOf({ events, last_seq: 2 }), { events, last_seq: 2 });
  deepStrictEqual(events.map(lastSignalSeqOf), [4, 6]);
});

Deno.test("a page is read", () => {
  const page = { signals: [signalAt(1)], next_cursor: null, last_seq: 9 };
  deepStrictEqual(pageOf(page), page);
});

Deno.test("the head is read, and may say no more than where the account is", () => {
  const told = {
    last_seq: 3,
    last_event_seq: 2,
    broadcast_interval_ms: 800,
    check_interval_ms: 5000,
  };
  const databaseTime = Date.UTC(2026, 0, 5);
  const head = headOf({ ...told, database_time: "2026-01-05T01:00:00+01:00" });
  deepStrictEqual(head, { ...told, databaseTime });
  deepStrictEqual(headOf({ last_seq: 3 }), {
    last_seq: 3,
    last_event_seq: 0,
    broadcast_interval_ms: 0,
    check_interval_ms: null,
    databaseTime: null,
  });
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
  "events that are no list": () => eventPageOf({ events: {}, last_seq: 0 }),
  "an event without the seq of its signal": () =>
    eventPageOf({ events: [{ ...eventAt(1, 1), signal_seq: null }], last_seq: 1 }),
  "an expiry with half a run": () =>
    eventPageOf({ events: [{ ...eventAt(1, 1), expired_seqs: [[1]] }], last_seq: 1 }),
  "a page of events without last_seq": () => eventPageOf({ events: [] }),
  "a head without last_seq": () => headOf({}),
};
for (const [what, read] of Object.entries(UNREADABLE)) {
  Deno.test(`${what} is refused`, () => throws(read, UnreadableError));
}
