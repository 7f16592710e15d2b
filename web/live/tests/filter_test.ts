/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { checkFilter, eventMatcherOf, matcherOf } from "../src/filter.ts";
import { parametersOf, type SignalFilter } from "../src/filter.ts";
import { eventAt, signalAt } from "./example_signal.ts";

const SIGNAL = { ...signalAt(1), trader_id: "0000000a-0000-4000-8000-00000000000a" };
const CASES: readonly [SignalFilter, boolean][] = [
  [{}, true],
  [{ traders: [SIGNAL.trader_id.toUpperCase()] }, true],
  [{ traders: ["0000000a-0000-4000-8000-00000000000b"] }, false],
  [{ symbols: ["NQ", "ES"] }, true],
  [{ symbols: ["es"] }, false],
  [{ timeframes: ["5m"] }, false],
  [{ actions: ["enter_long"] }, true],
  [{ actions: ["exit_long"] }, false],
  [{ minConfidence: 0.5 }, true],
  [{ minConfidence: 0.51 }, false],
  [{ symbols: ["ES"], minConfidence: 0.9 }, false],
];
for (const [filter, expected] of CASES) {
  Deno.test(`${JSON.stringify(filter)} ${expected ? "lets a signal through" : "does not"}`, () => {
    strictEqual(matcherOf(filter)(SIGNAL), expected);
  });
}

const EVENT = { ...eventAt(1, 1), trader_id: SIGNAL.trader_id };
const EVENT_CASES: readonly [SignalFilter, boolean | null][] = [
  [{}, true],
  [{ traders: [SIGNAL.trader_id.toUpperCase()], symbols: ["ES"], timeframes: ["1m"] }, true],
  [{ traders: ["0000000a-0000-4000-8000-00000000000b"] }, false],
  [{ symbols: ["NQ"] }, false],
  [{ timeframes: ["5m"] }, false],
  [{ minConfidence: 0.5 }, null],
  [{ actions: ["enter_long"] }, null],
  [{ symbols: ["NQ"], minConfidence: 0.5 }, false],
];
for (const [filter, expected] of EVENT_CASES) {
  Deno.test(`of an event ${JSON.stringify(filter)} says ${expected}`, () => {
    strictEqual(eventMatcherOf(filter)(EVENT), expected);
  });
}

Deno.test("an event with its signal is judged by that, and an expiry belongs to every filter", () => {
  const matches = eventMatcherOf({ minConfidence: 0.5, symbols: ["ES"] });
  strictEqual(matches({ ...EVENT, signal: SIGNAL }), true);
  strictEqual(matches({ ...EVENT, signal: { ...SIGNAL, confidence: 0.4 } }), false);
  strictEqual(matches(eventAt(2, [1, 3])), true);
});

Deno.test("a filter that could only be a mistake is refused", () => {
  const mistakes: SignalFilter[] = [
    { symbols: [] },
    { traders: Array(101).fill(SIGNAL.trader_id) },
    { minConfidence: 1.1 },
    { minConfidence: NaN },
  ];
  for (const filter of mistakes) throws(() => checkFilter(filter), RangeError);
  checkFilter({ symbols: ["ES"], minConfidence: 0 });
});

Deno.test("a query names what is given in the words of the API", () => {
  const sent = JSON.parse(JSON.stringify(parametersOf({ symbols: ["ES"], minConfidence: 0.5 })));
  deepStrictEqual(sent, { symbols: ["ES"], min_confidence: 0.5 });
});
