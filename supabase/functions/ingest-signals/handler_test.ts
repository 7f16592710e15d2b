import assert from "node:assert/strict";
import { contract, type ItemCode } from "../_shared/contract.ts";
import { restThatAnswers, USER_TOKEN } from "../_shared/example_exchange.ts";
import { exampleSignal } from "../_shared/example_signal.ts";
import { handler } from "./handler.ts";

const REQUEST_ID = "0d9f2c1e-5a77-4c0b-8f6d-3b1a2c4d5e6f";

function post(body: BodyInit, headers: Record<string, string> = {}): Request {
  return new Request("http://function.test/ingest-signals", {
    method: "POST",
    body,
    headers: {
      authorization: `Bearer ${USER_TOKEN}`,
      "content-type": "application/json",
      ...headers,
    },
  });
}

const batch = (...signals: readonly unknown[]) => ({ request_id: REQUEST_ID, signals });

/** What the database says of a batch of which these signals were not accepted. */
function verdict(signals: number, items: readonly (readonly [number, string])[] = []): Response {
  return Response.json({
    items: items.map(([index, code]) => ({
      code,
      index,
      message: contract.item_codes[code as ItemCode],
    })),
    accepted: signals - items.length,
    last_seq: signals - items.length,
    rejected: items.length,
    duplicate: 0,
    first_seq: 1,
    request_id: REQUEST_ID,
  });
}

/** What PostgreSQL says of JSON that jsonb cannot hold. */
const unreadable = (code: string) =>
  Response.json({ code, message: "unsupported", details: null, hint: null }, { status: 400 });

Deno.test("a valid batch and its verdict are passed on byte for byte", async () => {
  const sent = ` { "signals" : [${
    JSON.stringify(exampleSignal()).replace("97250.5", "97250.500")
  }],\n"request_id":"${REQUEST_ID}"}`;
  const said = '{"items": [], "accepted": 1, "rejected": 0, "duplicate": 0}';
  const { dependencies, calls, logs } = restThatAnswers(new Response(said));
  const response = await handler(post(sent), dependencies);
  assert.equal(response.status, 200);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.equal(await response.text(), said);
  assert.deepEqual(calls.map(({ url, body }) => [url, body]), [
    ["http://rest.test/rest/v1/rpc/ingest_signals", sent],
  ]);
  assert.deepEqual(logs, [{
    function: "ingest-signals",
    correlation_id: "new-id",
    request_id: REQUEST_ID,
    method: "POST",
    status: 200,
    ms: 0,
    body_bytes: sent.length,
    signals: 1,
    accepted: 1,
    duplicate: 0,
    rejected: 0,
  }]);
});

Deno.test("refused signals are sent as null, the others as written, and get their reasons", async () => {
  const written = JSON.stringify(exampleSignal({ price: 12345 }))
    .replace('"price":12345', '"price":1.50')
    .replace('{"strategy"', '{"id":12345678901234567890,"strategy"');
  const sent = `{"request_id":"${REQUEST_ID}","signals":[17, ${written} ,${
    JSON.stringify(exampleSignal({ confidence: 2 }))
  }]}`;
  const { dependencies, calls } = restThatAnswers(
    verdict(3, [[0, "invalid_signal"], [2, "invalid_signal"]]),
  );
  const response = await handler(post(sent), dependencies);
  assert.equal(
    calls[0]?.body,
    `{"request_id":"${REQUEST_ID}","signals":[null,${written},null]}`,
  );
  const { accepted, rejected, items } = await response.json();
  assert.deepEqual({ accepted, rejected }, { accepted: 1, rejected: 2 });
  assert.deepEqual(
    items,
    [
      { index: 0, code: "invalid_signal", message: contract.item_codes.invalid_signal },
      { index: 2, code: "invalid_confidence", message: contract.item_codes.invalid_confidence },
    ].map(({ index, code, message }) => ({ code, index, message })),
  );
});

Deno.test("reasons that the database gives for other signals stay", async () => {
  const { dependencies } = restThatAnswers(
    verdict(3, [[0, "invalid_signal"], [1, "stale"]]),
  );
  const sent = batch(exampleSignal({ seq: 1 }), exampleSignal(), exampleSignal());
  const response = await handler(post(JSON.stringify(sent)), dependencies);
  const items: { code: string }[] = (await response.json()).items;
  assert.deepEqual(items.map(({ code }) => code), ["unknown_field", "stale"]);
});

Deno.test("a batch of refused signals only still reaches the database", async () => {
  const { dependencies, calls } = restThatAnswers(
    verdict(2, [[0, "invalid_signal"], [1, "invalid_signal"]]),
  );
  await handler(post(JSON.stringify(batch({}, []))), dependencies);
  assert.deepEqual(JSON.parse(calls[0]!.body), batch(null, null));
});

Deno.test("what jsonb cannot hold is found after the database refuses the batch for it", async () => {
  const good = JSON.stringify(exampleSignal());
  const hidden = good.replace('"symbol":', '"symbol":"\\u0000","symbol":');
  const tiny = good.replace("0.83", "1e-20000");
  for (
    const [code, bad, reason] of [
      ["22P05", hidden, "invalid_symbol"],
      ["PGRST102", hidden.replace("\\u0000", "\\ud800"), "invalid_symbol"],
      ["22003", tiny, "invalid_confidence"],
    ] as const
  ) {
    const sent = `{"request_id":"${REQUEST_ID}","signals":[${good},${bad}]}`;
    const { dependencies, calls } = restThatAnswers(
      unreadable(code),
      verdict(2, [[1, "invalid_signal"]]),
    );
    const response = await handler(post(sent), dependencies);
    assert.equal(calls[0]?.body, sent);
    assert.equal(calls[1]?.body, `{"request_id":"${REQUEST_ID}","signals":[${good},null]}`);
    assert.deepEqual((await response.json()).items, [
      { code: reason, index: 1, message: contract.item_codes[reason] },
    ]);
  }
});

Deno.test("a value that stays unreadable is the caller's error, not one to wait out", async () => {
  const { dependencies, calls } = restThatAnswers(unreadable("22P02"), unreadable("22P02"));
  const response = await handler(post(JSON.stringify(batch(exampleSignal()))), dependencies);
  assert.equal(response.status, 400);
  assert.equal((await response.json()).code, "invalid_request");
  assert.equal(calls.length, 2);
});

Deno.test("a request that is no batch is refused before the database is asked", async () => {
  const id = REQUEST_ID;
  const cases: readonly (readonly [string, string, number, RegExp])[] = [
    ["{", "invalid_json", 400, /JSON/],
    ['{"request_id":NaN,"signals":[]}', "invalid_json", 400, /JSON/],
    ["[]", "invalid_request", 400, /not a JSON object/],
    ["null", "invalid_request", 400, /not a JSON object/],
    [`{"request_id":"${id}","signals":[],"more":1}`, "invalid_request", 400, /"more"/],
    [`{"request_id":"${id}","signals":[],"__proto__":{}}`, "invalid_request", 400, /"__proto__"/],
    ['{"signals":[]}', "invalid_request", 400, /request_id/],
    ['{"request_id":1,"signals":[]}', "invalid_request", 400, /request_id/],
    [`{"request_id":"${id}"}`, "invalid_request", 400, /signals is not an array/],
    [`{"request_id":"${id}","signals":{}}`, "invalid_request", 400, /signals is not an array/],
    [JSON.stringify(batch(...Array(5001).fill(1))), "batch_too_large", 413, /split/],
    [" ".repeat(2 ** 20) + "{}", "batch_too_large", 413, /split/],
  ];
  for (const [body, code, status, message] of cases) {
    const { dependencies, calls } = restThatAnswers();
    const response = await handler(post(body), dependencies);
    const error = await response.json();
    assert.deepEqual([response.status, error.code], [status, code], body.slice(0, 80));
    assert.match(error.message, message);
    assert.equal(calls.length, 0);
  }
});

Deno.test("an error carries the request_id of the body, and the correlation id without one", async () => {
  const idOf = async (body: string) => {
    const { dependencies } = restThatAnswers();
    return (await (await handler(post(body), dependencies)).json()).request_id;
  };
  assert.equal(await idOf(`{"request_id":"${REQUEST_ID}","signals":1}`), REQUEST_ID);
  assert.equal(await idOf('{"request_id":"x","signals":[]}'), "new-id");
  assert.equal(await idOf("not JSON"), "new-id");
});

Deno.test("without a user's token nothing of the body is read", async () => {
  const { dependencies } = restThatAnswers();
  const request = post("{}", { authorization: "Bearer sb_secret_x" });
  const response = await handler(request, dependencies);
  assert.equal(response.status, 401);
  assert.equal(request.bodyUsed, false);
});

Deno.test("an unreachable database is answered with 503 and a wait", async () => {
  const { dependencies, logs } = restThatAnswers(new TypeError("connection refused"));
  const response = await handler(post(JSON.stringify(batch(exampleSignal()))), dependencies);
  assert.equal(response.status, 503);
  assert.equal(response.headers.get("retry-after"), "1");
  assert.deepEqual(await response.json(), {
    code: "unavailable",
    message: contract.errors.unavailable.message,
    request_id: REQUEST_ID,
  });
  assert.equal(logs[0]?.code, "unavailable");
});

Deno.test("tokens and signals stay out of the log", async () => {
  const { dependencies, logs } = restThatAnswers(verdict(1));
  await handler(post(JSON.stringify(batch(exampleSignal({ symbol: "SECRET-1" })))), dependencies);
  assert.ok(!JSON.stringify(logs).includes("SECRET-1"));
  assert.ok(!JSON.stringify(logs).includes(USER_TOKEN));
});
