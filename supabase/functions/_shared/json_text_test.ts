import assert from "node:assert/strict";
import { elementsOf, membersOf, tokensOf } from "./json_text.ts";

const whole = (text: string) => ({ start: 0, end: text.length });

Deno.test("members are found as they were written, repeated and escaped names included", () => {
  const text = ' { "a" : 1.50 , "\\u0061":"}\\"]" ,"b\\\\":[1,{"c":"]"}] , "d": null} ';
  assert.deepEqual(
    membersOf(text, whole(text)).map(({ key, start, end }) => [key, text.slice(start, end)]),
    [["a", "1.50"], ["a", '"}\\"]"'], ["b\\", '[1,{"c":"]"}]'], ["d", "null"]],
  );
  assert.deepEqual(membersOf("{ }", whole("{ }")), []);
});

Deno.test("elements are found as they were written", () => {
  const text = '\n[ 1e3,"a,b" , [[],[2]],{"x":[3]},true , -0.10\t]';
  assert.deepEqual(
    elementsOf(text, whole(text)).map(({ start, end }) => text.slice(start, end)),
    ["1e3", '"a,b"', "[[],[2]]", '{"x":[3]}', "true", "-0.10"],
  );
  assert.deepEqual(elementsOf("[\t]", whole("[\t]")), []);
});

Deno.test("tokens are the strings, numbers and opening brackets with the depth they are at", () => {
  const text = '{"a":[1,"[",{"b":-2e5}],"c":true}';
  assert.deepEqual(
    [...tokensOf(text, whole(text))].map((it) => [it.kind, text.slice(it.start, it.end), it.depth]),
    [
      ["open", "{", 1],
      ["string", '"a"', 1],
      ["open", "[", 2],
      ["number", "1", 2],
      ["string", '"["', 2],
      ["open", "{", 3],
      ["string", '"b"', 3],
      ["number", "-2e5", 3],
      ["string", '"c"', 1],
    ],
  );
});

Deno.test("a mebibyte of brackets is walked without recursion", () => {
  const text = `[${"[".repeat(524_286)}${"]".repeat(524_286)}]`;
  assert.deepEqual(elementsOf(text, whole(text)), [{ start: 1, end: text.length - 1 }]);
});
