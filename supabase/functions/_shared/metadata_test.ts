import assert from "node:assert/strict";
import { mayBeMetadata } from "./metadata.ts";

/** Metadata whose text form in PostgreSQL is `{"a": "…"}` with the text in place of the dots. */
const holding = (text: string) => ({ a: text });
const FRAME = '{"a": ""}'.length;

Deno.test("metadata of 2048 bytes is accepted and of 2049 refused", () => {
  assert.ok(mayBeMetadata(holding("x".repeat(2048 - FRAME))));
  assert.ok(!mayBeMetadata(holding("x".repeat(2049 - FRAME))));
});

Deno.test("text counts as UTF-8, with only quotes, backslashes and control characters escaped", () => {
  for (
    const [unit, bytes] of [
      ["é", 2],
      ["€", 3],
      ["😀", 4],
      ['"', 2],
      ["\\", 2],
      ["\n", 2],
      [
        "\u000b",
        6,
      ],
      ["\u007f", 1],
      ["/", 1],
    ] as const
  ) {
    const room = 2048 - FRAME;
    const most = unit.repeat(Math.floor(room / bytes)) + "x".repeat(room % bytes);
    assert.ok(mayBeMetadata(holding(most)), unit);
    assert.ok(!mayBeMetadata(holding(`${most}x`)), unit);
  }
});

Deno.test("separators, brackets, true, false and null count as PostgreSQL writes them", () => {
  // {"a": [null, null, …], "b": {"c": true, "d": false}}
  const rest = '{"a": [], "b": {"c": true, "d": false}}'.length;
  const count = Math.floor((2048 - rest + 2) / "null, ".length);
  const text = { a: Array(count).fill(null), b: { c: true, d: false } };
  assert.ok(mayBeMetadata(text));
  assert.ok(!mayBeMetadata({ ...text, a: Array(count + 1).fill(null) }));
});

Deno.test("a number never counts for more than its shortest text", () => {
  const most = Math.floor((2048 - FRAME + 2) / "1, ".length);
  assert.ok(mayBeMetadata({ a: Array(most).fill(1) }));
  assert.ok(!mayBeMetadata({ a: Array(most + 1).fill(1) }));
  // 2048 bytes as written; parsed, the number would be written with a digit more.
  assert.ok(mayBeMetadata(JSON.parse(`{"a":"${"x".repeat(2012)}","b":99999999999999999999}`)));
});

Deno.test("NUL and half of a surrogate pair are refused in values and in names", () => {
  for (const text of ["\0", "a\0b", "\ud800", "\udc00x", "\ud800\ud800\udc00"]) {
    assert.ok(!mayBeMetadata({ a: text }), JSON.stringify(text));
    assert.ok(!mayBeMetadata({ a: [{ [text]: 1 }] }), JSON.stringify(text));
  }
  assert.ok(mayBeMetadata({ a: "\u0001\ud83d\ude00" }));
});

Deno.test("nesting without end is refused without exhausting the stack", () => {
  assert.ok(!mayBeMetadata(JSON.parse(`{"a":${"[".repeat(500_000)}${"]".repeat(500_000)}}`)));
  assert.ok(!mayBeMetadata(JSON.parse(`${'{"a":'.repeat(100_000)}1${"}".repeat(100_000)}`)));
});

Deno.test("a member named __proto__ is a member like any other", () => {
  assert.ok(!mayBeMetadata(JSON.parse(`{"__proto__":"${"x".repeat(2048)}"}`)));
  assert.ok(mayBeMetadata(JSON.parse('{"__proto__":{"a":1}}')));
});
