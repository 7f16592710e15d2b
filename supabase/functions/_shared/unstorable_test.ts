import assert from "node:assert/strict";
import { isUnstorable } from "./unstorable.ts";

const unstorable = (text: string) => isUnstorable(text, { start: 0, end: text.length });

Deno.test("NUL and half of a surrogate pair cannot be stored, wherever they are", () => {
  for (const text of ['"\\u0000"', '{"a\\u0000":1}', '["\\ud800"]', '{"a":1,"a":"\\uDC00"}']) {
    assert.ok(unstorable(text), text);
  }
  for (const text of ['"\\u0001"', '"\\\\u0000"', '"\\ud83d\\ude00"', '"ud800"']) {
    assert.ok(!unstorable(text), text);
  }
});

Deno.test("a number cannot be stored beyond the digits of numeric", () => {
  const zeros = (count: number) => "0".repeat(count);
  for (
    const text of [
      "1e131072",
      "-0.1e131073",
      "1e-16384",
      "1.5e-16383",
      "1E+999999999",
      "0e-16384",
      "0e1073741824",
      `1${zeros(131_072)}`,
      `0.${zeros(16_383)}1`,
    ]
  ) assert.ok(unstorable(text), text.slice(0, 20));
  for (
    const text of [
      "1e131071",
      "0.1e131072",
      "1e-16383",
      "-12.5",
      "0e5",
      "0e200000",
      `1${zeros(131_071)}`,
      `0.${zeros(16_382)}1`,
    ]
  ) assert.ok(!unstorable(text), text.slice(0, 20));
});

Deno.test("nesting without end cannot be stored", () => {
  assert.ok(unstorable(`${"[".repeat(513)}${"]".repeat(513)}`));
  assert.ok(!unstorable(`${"[".repeat(512)}1${"]".repeat(512)}`));
});
