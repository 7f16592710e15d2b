/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual, throws } from "node:assert/strict";
import { checkFilter, matcherOf, parametersOf, type SignalFilter } from "../src/filter.ts";
import { signalAt } from "./example_signal.ts";

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
