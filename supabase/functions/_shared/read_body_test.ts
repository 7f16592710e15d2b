import assert from "node:assert/strict";
import type { ErrorCode } from "./contract.ts";
import { ApiError } from "./errors.ts";
import { parseJson, readBody } from "./read_body.ts";

const LIMIT = 1000;
const url = "http://function.test/";

function post(body: BodyInit | null, headers: Record<string, string> = {}): Request {
  return new Request(url, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });
}

async function gzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const packed = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

function refuses(promise: Promise<unknown>, code: ErrorCode): Promise<void> {
  return assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof ApiError, String(error));
    assert.equal(error.code, code);
    return true;
  });
}

Deno.test("a body of exactly the limit is read, plain and gzip, and one byte more is not", async () => {
  const full = new Uint8Array(LIMIT).fill(0x20);
  const over = new Uint8Array(LIMIT + 1).fill(0x20);
  const packed = { "content-encoding": "gzip" };
  assert.deepEqual(await readBody(post(full), LIMIT), full);
  assert.deepEqual(await readBody(post(await gzip(full), packed), LIMIT), full);
  await refuses(readBody(post(over), LIMIT), "batch_too_large");
  await refuses(readBody(post(await gzip(over), packed), LIMIT), "batch_too_large");
});

Deno.test("an announced length over the limit is refused before anything is read", async () => {
  const request = post("{}", { "content-length": String(LIMIT + 1) });
  await refuses(readBody(request, LIMIT), "batch_too_large");
  assert.equal(request.bodyUsed, false);
});

Deno.test("a stream without end is given up at the limit", async () => {
  let sent = 0, cancelled = false;
  const endless = new ReadableStream({
    pull: (controller) => controller.enqueue(new Uint8Array(sent += 100)),
    cancel: () => {
      cancelled = true;
    },
  });
  await refuses(readBody(post(endless), LIMIT), "batch_too_large");
  assert.ok(cancelled);
  assert.ok(sent < LIMIT, `${sent} bytes in the last chunk`);
});

Deno.test("a gzip bomb is unpacked no further than the limit", async () => {
  const bomb = await gzip(new Uint8Array(64 * 2 ** 20));
  const limit = bomb.length * 2;
  await refuses(readBody(post(bomb, { "content-encoding": "gzip" }), limit), "batch_too_large");
});

Deno.test("gzip that is broken, cut short or followed by more is no JSON", async () => {
  const packed = await gzip(new TextEncoder().encode('{"a":1}'));
  const followed = new Uint8Array([...packed, 1, 2, 3]);
  for (const body of [packed.slice(0, -4), followed, new Uint8Array([1, 2, 3]), new Uint8Array()]) {
    await refuses(readBody(post(body, { "content-encoding": "gzip" }), LIMIT), "invalid_json");
  }
});

Deno.test("only JSON, plain or gzip, is read", async () => {
  for (const type of ["text/plain", "application/jsonx", "multipart/form-data; boundary=x", ""]) {
    await refuses(readBody(post("{}", { "content-type": type }), LIMIT), "unsupported_media_type");
  }
  for (const encoding of ["br", "deflate", "gzip, gzip", "identity, gzip"]) {
    const request = post("{}", { "content-encoding": encoding });
    await refuses(readBody(request, LIMIT), "unsupported_media_type");
  }
  const headers = {
    "content-type": "Application/JSON; charset=utf-8",
    "content-encoding": "Identity",
  };
  assert.equal(new TextDecoder().decode(await readBody(post("{}", headers), LIMIT)), "{}");
});

Deno.test("a missing body is read as empty", async () => {
  assert.equal((await readBody(post(null), LIMIT)).length, 0);
});

Deno.test("JSON is strict and in UTF-8", async () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const invalid = [
    "",
    "NaN",
    '{"a":Infinity}',
    "{'a':1}",
    '{"a":1,}',
    '"\n"',
    "\ufeff{}",
    "01",
    "{}x",
  ];
  for (const text of invalid) {
    await refuses(Promise.try(() => parseJson(bytes(text))), "invalid_json");
  }
  for (
    const raw of [[0x22, 0xff, 0x22], [0x22, 0xed, 0xa0, 0x80, 0x22], [0x22, 0xc0, 0x80, 0x22]]
  ) {
    await refuses(Promise.try(() => parseJson(new Uint8Array(raw))), "invalid_json");
  }
  assert.deepEqual(parseJson(bytes(' {"é":1} ')), { text: ' {"é":1} ', value: { é: 1 } });
});
