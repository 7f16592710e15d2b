import assert from "node:assert/strict";
import { ApiError } from "./errors.ts";
import { restThatAnswers } from "./example_exchange.ts";
import { callRpc, errorOf } from "./rest.ts";

const body = (code: string, details: unknown = null, message = "a sentence") =>
  JSON.stringify({ code, details, hint: null, message });

Deno.test("an error that the database raises by the catalogue keeps its code and sentence", () => {
  const error = errorOf(409, body("PT409", "request_id_reused", "This id is taken."));
  assert.equal(error.code, "request_id_reused");
  assert.equal(error.message, "This id is taken.");
  assert.equal(error.status, 409);
});

Deno.test("every other answer of the REST API becomes a code of the catalogue", () => {
  const cases = [
    [401, body("PGRST301"), "unauthorized"],
    [401, body("PGRST303"), "unauthorized"],
    [401, "", "unauthorized"],
    [403, body("42501"), "unauthorized"],
    [503, body("PGRST000"), "unavailable"],
    [504, body("PGRST003"), "unavailable"],
    [500, body("57014"), "unavailable"],
    [503, body("57P01"), "unavailable"],
    [503, body("08006"), "unavailable"],
    [503, body("53300"), "unavailable"],
    [500, body("40P01"), "unavailable"],
    [500, body("40001"), "unavailable"],
    [405, body("25006"), "unavailable"],
    [429, "slow down", "unavailable"],
    [502, "<html>Bad gateway</html>", "unavailable"],
    [400, body("PT400", "no_such_code"), "internal"],
    [400, body("PT400", "toString"), "internal"],
    [404, body("PGRST202"), "internal"],
    [400, body("23505"), "internal"],
    [500, "[]", "internal"],
    [302, "", "internal"],
  ] as const;
  for (const [status, text, code] of cases) {
    assert.equal(errorOf(status, text).code, code, `${status} ${text}`);
  }
});

Deno.test("an unknown error of the database is not shown to the caller", () => {
  const error = errorOf(400, body("23505", "Key (seq)=(1) exists.", "duplicate key in private.x"));
  assert.ok(!/seq|private/.test(error.message));
  assert.equal(error.sqlstate, "23505");
});

Deno.test("a call carries the user's token, the project's key and the correlation id", async () => {
  const { dependencies, calls } = restThatAnswers(new Response("7"));
  const exchange = { dependencies, correlationId: "c-1", requestId: "r-1", facts: {} };
  assert.equal(await callRpc("my_account", "{}", "token", exchange), "7");
  assert.equal(calls[0]?.url, "http://rest.test/rest/v1/rpc/my_account");
  assert.deepEqual(Object.fromEntries(calls[0]!.headers), {
    apikey: "project-key",
    authorization: "Bearer token",
    "content-type": "application/json",
    "x-correlation-id": "c-1",
  });
});

Deno.test("no answer, a broken answer and a passing failure are unavailable, with a wait", async () => {
  const cut = new Response(new ReadableStream({ start: (it) => it.error(new TypeError("cut")) }));
  const busy = new Response("", { status: 503, headers: { "retry-after": "7" } });
  for (
    const [answer, wait] of [[new TypeError("refused"), "1"], [cut, "1"], [busy, "7"]] as const
  ) {
    const { dependencies } = restThatAnswers(answer);
    const exchange = { dependencies, correlationId: "c-1", requestId: "r-1", facts: {} };
    await assert.rejects(callRpc("my_account", "{}", "token", exchange), (error: unknown) => {
      assert.ok(error instanceof ApiError);
      assert.equal(error.code, "unavailable");
      assert.equal(error.retryAfter, wait);
      return true;
    });
  }
});
