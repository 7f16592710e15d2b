import assert from "node:assert/strict";
import { isTimestamp, microsecondsOf } from "./timestamp.ts";

Deno.test("a timestamp has a date that exists, seconds and a zone", () => {
  for (
    const text of [
      "2026-11-22T10:15:00Z",
      "2026-11-22T10:15:00.1+02:00",
      "2024-02-29T23:59:59.999999-14:59",
      "2999-12-31T00:00:00Z",
    ]
  ) assert.ok(isTimestamp(text), text);
  for (
    const value of [
      "2026-02-29T00:00:00Z",
      "2100-02-29T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-11-22T10:15:00",
      "2026-11-22 10:15:00Z",
      "2026-11-22T10:15Z",
      "2026-11-22T24:00:00Z",
      "2026-11-22T10:15:60Z",
      "2026-11-22T10:15:00.1234567Z",
      "2026-11-22T10:15:00z",
      "2026-11-22T10:15:00Z\n",
      "infinity",
      1700000000,
      null,
    ]
  ) assert.ok(!isTimestamp(value), String(value));
});

Deno.test("microseconds count from 1970 in UTC, before it and beyond a double's precision", () => {
  assert.equal(microsecondsOf("1970-01-01T00:00:00.000001Z"), 1n);
  assert.equal(microsecondsOf("1969-12-31T23:59:59.999999Z"), -1n);
  assert.equal(microsecondsOf("1970-01-01T02:00:00.5+02:00"), 500_000n);
  assert.equal(microsecondsOf("1969-12-31T22:30:00-01:30"), 0n);
  assert.equal(microsecondsOf("2999-12-31T23:59:59.999999Z"), 32_503_679_999_999_999n);
});
