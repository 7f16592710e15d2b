import assert from "node:assert/strict";
import { entityTagOf, isNamed } from "./entity_tag.ts";

Deno.test("a tag is quoted, and the same for the same bytes only", async () => {
  const tag = await entityTagOf('{"signals": []}');
  assert.match(tag, /^"[0-9a-f]{64}"$/);
  assert.equal(await entityTagOf('{"signals": []}'), tag);
  assert.notEqual(await entityTagOf('{"signals":[]}'), tag);
});

Deno.test("If-None-Match may name several tags, weak ones, or any", () => {
  for (const header of ['"a"', 'W/"a"', '"b", "a"', '"b",W/"a" ', "*"]) {
    assert.equal(isNamed('"a"', header), true, header);
  }
  for (const header of [null, "", "a", '"b"', '"aa"', 'w/"a"', '"A"']) {
    assert.equal(isNamed('"a"', header), false, String(header));
  }
});
