import assert from "node:assert/strict";
import { contract } from "./contract.ts";
import { exampleSignal } from "./example_signal.ts";
import { problemOf, signalId } from "./signal.ts";

Deno.test("a signal with every field, and one with only the required ones, has no problem", () => {
  assert.equal(problemOf(exampleSignal()), null);
  const required = Object.entries(exampleSignal()).filter(([key]) =>
    contract.required.includes(key)
  );
  assert.equal(problemOf(Object.fromEntries(required)), null);
});

Deno.test("what is no object is an invalid signal", () => {
  for (const value of [null, 1, "signal", true, [], [exampleSignal()]]) {
    assert.equal(problemOf(value), "invalid_signal");
  }
});

Deno.test("a name that is no field is an unknown field, even one that every object inherits", () => {
  for (const name of ["seq", "Symbol", "", "__proto__", "constructor", "toString"]) {
    const signal = JSON.parse(JSON.stringify(exampleSignal()).replace("{", `{"${name}":1,`));
    assert.equal(problemOf(signal), "unknown_field", name);
  }
});

Deno.test("each field is refused under its own code", () => {
  const wrong: Record<string, unknown[]> = {
    trader_id: [undefined, null, "", 1, "6f1b7a523c0e4a8b9d4f0e6a5b1c2d3e", "{}", ["x"]],
    symbol: [undefined, null, "", "A B", "x".repeat(33), "EUR\n", "€", "\0", 7],
    timeframe: [undefined, null, "2m", "1H", 1, ["1m"]],
    generated_at: [undefined, null, 0, "2026-02-30T00:00:00Z", "now", "2026-11-22"],
    action: [undefined, null, "buy", "ENTER_LONG", 1, true],
    confidence: [undefined, null, "0.5", true, -0.01, 1.01, Infinity, [0.5]],
    price: [undefined, null, "1", false, 1.1e15, -1.1e15, Infinity, -Infinity, {}],
    stop_loss: ["1", false, 1.1e15, Infinity, []],
    take_profit: ["1", false, -1.1e15, -Infinity, {}],
    valid_until: ["", 1, "2026-11-22T10:15:00.123456Z", "2026-11-22T10:15:00.123455Z", "soon"],
    metadata: [[], "{}", 1, false, { a: "\0" }, { a: "x".repeat(2048) }],
  };
  assert.deepEqual(Object.keys(wrong), contract.fields);
  for (const [field, values] of Object.entries(wrong)) {
    for (const value of values) {
      const signal = exampleSignal({ [field]: value });
      assert.equal(problemOf(signal), `invalid_${field}`, `${field}: ${JSON.stringify(value)}`);
    }
  }
});

Deno.test("the edges of each range are inside it", () => {
  for (
    const fields of [
      { confidence: 0 },
      { confidence: 1 },
      { confidence: -0 },
      { price: 1e15 },
      { price: -1e15 },
      { price: 0 },
      { symbol: "A" },
      { symbol: "aZ09._/:=@#!&^+-" },
      { symbol: "x".repeat(32) },
      { trader_id: "6F1B7A52-3C0E-4A8B-9D4F-0E6A5B1C2D3E" },
      { valid_until: "2026-11-22T10:15:00.123457Z" },
      { valid_until: "2026-11-22T12:15:00.123457+02:00" },
      { stop_loss: null, take_profit: null, valid_until: null, metadata: null },
      { metadata: {} },
    ]
  ) assert.equal(problemOf(exampleSignal(fields)), null, JSON.stringify(fields));
});

Deno.test("the first failing check in the order of the contract gives the code", () => {
  const allWrong = Object.fromEntries(contract.fields.map((field) => [field, Infinity]));
  for (const field of contract.fields) {
    assert.equal(problemOf(allWrong), `invalid_${field}`);
    Object.assign(allWrong, { [field]: (exampleSignal() as Record<string, unknown>)[field] });
  }
  assert.equal(problemOf({ ...allWrong, seq: 1, symbol: 1 }), "unknown_field");
});

Deno.test("signal_id is a version 8 UUID of the account and the natural key", async () => {
  const account = "7e57ab1e-0000-4000-8000-00000000000a";
  const key = {
    trader_id: "6f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
    symbol: "BTC-USD",
    timeframe: "15m",
    generated_at: "2026-11-22T10:15:00.123456Z",
  };
  const id = await signalId(account, key);
  assert.equal(id, "1588aab4-a82c-8e02-9529-97f4d521a1a1");
  for (
    const same of [
      { ...key, trader_id: key.trader_id.toUpperCase() },
      { ...key, generated_at: "2026-11-22T12:15:00.123456+02:00" },
    ]
  ) assert.equal(await signalId(account.toUpperCase(), same), id);
  for (
    const other of [
      { ...key, symbol: "btc-usd" },
      { ...key, timeframe: "1h" },
      { ...key, generated_at: "2026-11-22T10:15:00.123457Z" },
    ]
  ) assert.notEqual(await signalId(account, other), id);
});
