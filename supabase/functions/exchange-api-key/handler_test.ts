import assert from "node:assert/strict";
import { restThatAnswers } from "../_shared/example_exchange.ts";
import { exchangeApiKey } from "./handler.ts";

const API_KEY = `sgk_${"0123456789abcdef".repeat(2)}_${"a1b2c3d4".repeat(8)}`;
const KEY_HASH = "f833a61cdc429666";
const GRANT = {
  account_id: "7e57ab1e-0000-4000-8000-000000000001",
  key_id: "7e57ab1e-0000-4000-8000-000000000002",
  scope: "signals:write",
  expires_in: 900,
};

function post(body: unknown, headers: Record<string, string> = {}): Request {
  return new Request("http://function.test/exchange-api-key", {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers },
  });
}

/** The function with a signer that shows its claims, and what it did. */
function issuing(...answers: readonly (Response | Error)[]) {
  const rest = restThatAnswers(...answers);
  const handler = exchangeApiKey({
    signer: { sign: (claims) => Promise.resolve(`signed ${JSON.stringify(claims)}`) },
    secretKey: "sb_secret_of_the_project",
    now: () => 1_000.9,
  });
  return { ...rest, ask: (request: Request) => handler(request, rest.dependencies) };
}

function refused(status: number, code: string, details: string): Response {
  return Response.json({ code, details, hint: null, message: "Cannot." }, { status });
}

Deno.test("a key is exchanged for a token that says what the database grants", async () => {
  const { ask, calls, logs } = issuing(Response.json(GRANT));
  const answer = await ask(post({ api_key: API_KEY }));
  assert.equal(answer.status, 200);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  const { access_token: token, ...rest } = await answer.json();
  assert.deepEqual(rest, {
    token_type: "bearer",
    expires_in: 900,
    expires_at: 1_900,
    scope: "signals:write",
    account_id: GRANT.account_id,
    api_key_id: GRANT.key_id,
  });
  assert.deepEqual(JSON.parse(token.replace("signed ", "")), {
    iss: "http://rest.test/auth/v1",
    sub: GRANT.account_id,
    aud: "authenticated",
    role: "authenticated",
    iat: 1_000,
    exp: 1_900,
    scope: "signals:write",
    api_key_id: GRANT.key_id,
    session_id: GRANT.key_id,
  });
  assert.equal(calls[0]?.url, "http://rest.test/rest/v1/rpc/exchange_api_key");
  assert.equal(calls[0]?.headers.get("apikey"), "sb_secret_of_the_project");
  assert.equal(calls[0]?.headers.get("authorization"), null);
  assert.equal(logs[0]?.api_key_id, GRANT.key_id);
});

Deno.test("neither the log nor the database sees the key", async () => {
  const { ask, calls, logs } = issuing(Response.json(GRANT));
  await ask(post({ api_key: API_KEY }));
  const { key_hash: hash, ...rest } = JSON.parse(calls[0]!.body);
  assert.deepEqual(rest, {});
  assert.match(hash, /^[0-9a-f]{64}$/);
  assert.ok(hash.startsWith(KEY_HASH), hash);
  const seen = JSON.stringify([calls[0], logs]);
  assert.ok(!seen.includes(API_KEY) && !seen.includes(API_KEY.slice(-64)), seen);
});

Deno.test("the legacy service_role key is sent as a token too", async () => {
  const { dependencies, calls } = restThatAnswers(Response.json(GRANT));
  const handler = exchangeApiKey({
    signer: { sign: () => Promise.resolve("token") },
    secretKey: "eyJ.legacy.key",
    now: () => 0,
  });
  await handler(post({ api_key: API_KEY }), dependencies);
  assert.equal(calls[0]?.headers.get("authorization"), "Bearer eyJ.legacy.key");
});

Deno.test("what is not a key is refused without asking the database, and never quoted", async () => {
  const cases: [unknown, number, string][] = [
    ["{", 400, "invalid_json"],
    [[], 400, "invalid_request"],
    [{}, 400, "invalid_request"],
    [{ api_key: 1 }, 400, "invalid_request"],
    [{ [API_KEY]: "" }, 400, "invalid_request"],
    [{ api_key: API_KEY, scope: "signals:write" }, 400, "invalid_request"],
    [{ api_key: `${API_KEY} `.repeat(10) }, 400, "invalid_request"],
    [{ api_key: "" }, 401, "invalid_api_key"],
    [{ api_key: `${API_KEY}\n` }, 401, "invalid_api_key"],
    [{ api_key: API_KEY.toUpperCase() }, 401, "invalid_api_key"],
    [{ api_key: API_KEY.slice(0, -1) }, 401, "invalid_api_key"],
  ];
  for (const [body, status, code] of cases) {
    const { ask, calls, logs } = issuing();
    const answer = await ask(post(body));
    const text = await answer.text();
    assert.equal(answer.status, status, text);
    assert.equal(JSON.parse(text).code, code);
    assert.equal(calls.length, 0);
    const secret = API_KEY.slice(-60, -1);
    assert.ok(!text.includes(secret) && !JSON.stringify(logs).includes(secret));
  }
});

Deno.test("the errors of the database keep their codes, but for those that are the service's own", async () => {
  const cases: [Response | Error, number, string][] = [
    [refused(401, "PT401", "invalid_api_key"), 401, "invalid_api_key"],
    [refused(429, "PT429", "too_many_requests"), 429, "too_many_requests"],
    [refused(401, "PGRST301", ""), 500, "internal"],
    [refused(403, "42501", ""), 500, "internal"],
    [refused(500, "57014", ""), 503, "unavailable"],
    [new TypeError("refused"), 503, "unavailable"],
  ];
  for (const [given, status, code] of cases) {
    const { ask } = issuing(given);
    const answer = await ask(post({ api_key: API_KEY }));
    assert.equal(answer.status, status);
    assert.equal((await answer.json()).code, code);
    assert.equal(answer.headers.get("retry-after"), status === 429 || status === 503 ? "1" : null);
  }
});

Deno.test("a signer that fails is an internal error that says nothing of the key", async () => {
  const { dependencies, logs } = restThatAnswers(Response.json(GRANT));
  const handler = exchangeApiKey({
    signer: { sign: () => Promise.reject(new Error(`cannot sign for ${API_KEY}`)) },
    secretKey: "sb_secret_of_the_project",
    now: () => 0,
  });
  const answer = await handler(post({ api_key: API_KEY }), dependencies);
  assert.equal(answer.status, 500);
  assert.ok(!JSON.stringify([await answer.json(), logs]).includes(API_KEY));
});
