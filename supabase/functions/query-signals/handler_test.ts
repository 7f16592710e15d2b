import assert from "node:assert/strict";
import { restThatAnswers, USER_TOKEN } from "../_shared/example_exchange.ts";
import { handler } from "./handler.ts";

const TRADERS = [
  "6f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
  "7f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
];
const PAGE = '{"signals": [], "next_cursor": null, "last_seq": 0}';

function get(query: string): Request {
  return new Request(`http://function.test/query-signals${query}`, {
    headers: { authorization: `Bearer ${USER_TOKEN}` },
  });
}

function post(body: unknown): Request {
  return new Request("http://function.test/query-signals", {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { authorization: `Bearer ${USER_TOKEN}`, "content-type": "application/json" },
  });
}

/** What the database is asked for a request. */
async function askedFor(request: Request): Promise<unknown> {
  const { dependencies, calls } = restThatAnswers(new Response(PAGE));
  const response = await handler(request, dependencies);
  assert.equal(response.status, 200, await response.clone().text());
  assert.equal(calls[0]?.url, "http://rest.test/rest/v1/rpc/query_signals");
  return JSON.parse(calls[0]!.body);
}

async function errorFor(request: Request): Promise<{ code: string; message: string }> {
  const { dependencies, calls } = restThatAnswers();
  const response = await handler(request, dependencies);
  assert.equal(calls.length, 0);
  return await response.json();
}

Deno.test("the page is passed on as the database wrote it and never kept by a cache", async () => {
  const { dependencies } = restThatAnswers(new Response(PAGE));
  const response = await handler(get(""), dependencies);
  assert.equal(await response.text(), PAGE);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.equal(response.headers.get("cache-control"), "private, no-store");
});

Deno.test("a query string and a JSON body ask for the same", async () => {
  const asked = {
    traders: TRADERS,
    symbols: ["BTC-USD", "ES"],
    timeframes: ["1m"],
    actions: ["enter_long", "exit_long"],
    min_confidence: 0.5,
    from: "2026-11-20T00:00:00+02:00",
    to: "2026-11-22T00:00:00.5Z",
    after_seq: "9007199254740993",
    sort: "seq",
    cursor: "c1",
    page_size: 1000,
  };
  const query = `?traders=${TRADERS}&symbols=BTC-USD&symbols=ES&timeframes=1m` +
    "&actions=enter_long,exit_long&min_confidence=0.5&from=2026-11-20T00:00:00%2B02:00" +
    "&to=2026-11-22T00:00:00.5Z&after_seq=9007199254740993&sort=seq&cursor=c1&page_size=1000";
  assert.deepEqual(await askedFor(get(query)), asked);
  assert.deepEqual(await askedFor(post(asked)), asked);
});

Deno.test("what is not given, or null, is left to the database", async () => {
  assert.deepEqual(await askedFor(get("")), {});
  assert.deepEqual(await askedFor(post({ traders: null, after_seq: 0 })), { after_seq: 0 });
});

Deno.test("an unknown parameter is named", async () => {
  for (const request of [get("?trader=x"), post({ trader: null }), get("?__proto__=1")]) {
    const { code, message } = await errorFor(request);
    assert.equal(code, "invalid_request");
    assert.match(message, /"trader"|"__proto__"/);
  }
});

Deno.test("a value of the wrong form is refused and its parameter named", async () => {
  const queries = {
    traders: ["x", TRADERS[0] + ","],
    symbols: ["", "%00", Array(101).fill("A").join()],
    timeframes: ["1m,,5m"],
    min_confidence: ["1.1", "-0.1", "NaN", "", "0x1", "1e999"],
    from: ["yesterday", "2026-11-20T00:00:00+02:00", "2026-02-30T00:00:00Z"],
    to: ["1700000000"],
    after_seq: ["-1", "1.5", "9223372036854775808", ""],
    sort: ["oldest"],
    cursor: ["", "%00"],
    page_size: ["0", "1001", "10.5", "ten"],
  };
  for (const [name, values] of Object.entries(queries)) {
    for (const value of values) {
      const { code, message } = await errorFor(get(`?${name}=${value}`));
      assert.equal(code, "invalid_filter", `${name}=${value}`);
      assert.match(message, new RegExp(`\\b${name} must be`));
    }
  }
  const bodies = [
    { traders: TRADERS[0] },
    { symbols: [1] },
    { symbols: ["\ud800"] },
    { min_confidence: "0.5" },
    { min_confidence: true },
    { after_seq: 2 ** 53 },
    { page_size: "10" },
    { from: 0 },
    { cursor: {} },
  ];
  for (const body of bodies) assert.equal((await errorFor(post(body))).code, "invalid_filter");
});

Deno.test("a single value given twice is refused", async () => {
  const { code, message } = await errorFor(get("?page_size=1&page_size=2"));
  assert.equal(code, "invalid_request");
  assert.match(message, /page_size/);
});

Deno.test("a body that is no JSON object, or too large, is refused", async () => {
  assert.equal((await errorFor(post("{"))).code, "invalid_json");
  assert.equal((await errorFor(post("[]"))).code, "invalid_request");
  assert.equal((await errorFor(post(" ".repeat(65_537)))).code, "batch_too_large");
});

Deno.test("a value that only the database can refuse is an invalid filter", async () => {
  const { dependencies } = restThatAnswers(
    Response.json({ code: "22008", message: "m", details: null, hint: null }, { status: 400 }),
  );
  const response = await handler(get("?from=2999-12-31T23:59:59Z"), dependencies);
  assert.equal(response.status, 400);
  assert.equal((await response.json()).code, "invalid_filter");
});

Deno.test("the database's own sentence about a filter reaches the caller", async () => {
  const { dependencies } = restThatAnswers(Response.json({
    code: "PT400",
    message: "The cursor is from another filter.",
    details: "invalid_cursor",
    hint: null,
  }, { status: 400 }));
  const error = await (await handler(get("?cursor=x"), dependencies)).json();
  assert.deepEqual([error.code, error.message], [
    "invalid_cursor",
    "The cursor is from another filter.",
  ]);
});
