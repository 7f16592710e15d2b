import assert from "node:assert/strict";
import { endpoint } from "./endpoint.ts";
import { ApiError } from "./errors.ts";
import { restThatAnswers } from "./example_exchange.ts";

const call = (work: () => Promise<Response>, init: RequestInit = {}) => {
  const { dependencies, logs } = restThatAnswers();
  const handler = endpoint("a-function", ["GET", "POST"], work);
  const response = handler(new Request("http://function.test/a-function", init), dependencies);
  return { response, logs };
};

Deno.test("a preflight is answered without doing the work", async () => {
  const { response, logs } = call(() => Promise.reject(new Error("worked")), { method: "OPTIONS" });
  const { status, headers, body } = await response;
  assert.equal(status, 204);
  assert.equal(body, null);
  assert.equal(headers.get("access-control-allow-origin"), "*");
  assert.equal(headers.get("access-control-allow-methods"), "GET, POST, OPTIONS");
  for (
    const name of ["authorization", "apikey", "content-type", "content-encoding", "x-client-info"]
  ) {
    assert.ok(headers.get("access-control-allow-headers")?.split(", ").includes(name), name);
  }
  assert.equal(logs.length, 0);
});

Deno.test("another method is refused and the allowed ones are named", async () => {
  const response = await call(() => Promise.resolve(new Response()), { method: "DELETE" }).response;
  assert.equal(response.status, 405);
  assert.equal(response.headers.get("allow"), "GET, POST");
  assert.equal((await response.json()).code, "method_not_allowed");
});

Deno.test("every answer has the CORS headers and a correlation id", async () => {
  const fail = () => Promise.reject(new ApiError("not_found"));
  for (const work of [() => Promise.resolve(new Response("1")), fail]) {
    for (
      const [sent, expected] of [["abc-1", "abc-1"], ["a b", "new-id"], ["x".repeat(65), "new-id"]]
    ) {
      const response = await call(work, { headers: { "x-correlation-id": sent! } }).response;
      assert.equal(response.headers.get("x-correlation-id"), expected);
      assert.equal(response.headers.get("access-control-allow-origin"), "*");
    }
  }
});

Deno.test("only 429 and 503 say when to come back", async () => {
  for (
    const [code, wait] of [["unavailable", "1"], ["internal", null], ["not_found", null]] as const
  ) {
    const response = await call(() => Promise.reject(new ApiError(code))).response;
    assert.equal(response.headers.get("retry-after"), wait, code);
    assert.match(response.headers.get("content-type") ?? "", /^application\/json/);
  }
});

Deno.test("an unexpected error is internal, and its message reaches neither caller nor log", async () => {
  const { response, logs } = call(() => Promise.reject(new RangeError("secret of a signal")));
  const text = await (await response).text();
  assert.equal(JSON.parse(text).code, "internal");
  assert.ok(!`${text}${JSON.stringify(logs)}`.includes("secret"));
  assert.match(logs[0]?.failure ?? "", /^RangeError at /);
});
