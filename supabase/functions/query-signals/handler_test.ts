import assert from "node:assert/strict";
import { contract, isErrorCode } from "../_shared/contract.ts";
import { EXAMPLE_NOW, restThatAnswers, USER_TOKEN } from "../_shared/example_exchange.ts";
import { handler } from "./handler.ts";
import { lifetimeOf } from "./lifetime.ts";
import { questionAt } from "./questions.ts";

const TRADERS = [
  "6f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
  "7f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
];
const PAGE = '{"signals": [], "next_cursor": null, "last_seq": 0}';

function get(query: string, headers: Record<string, string> = {}): Request {
  return new Request(`http://function.test/query-signals${query}`, {
    headers: { authorization: `Bearer ${USER_TOKEN}`, ...headers },
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

Deno.test("the page is passed on as the database wrote it", async () => {
  const { dependencies } = restThatAnswers(new Response(PAGE));
  const response = await handler(get(""), dependencies);
  assert.equal(await response.text(), PAGE);
  assert.equal(response.headers.get("content-type"), "application/json");
  assert.equal(response.headers.get("cache-control"), "private, no-cache");
  assert.equal(response.headers.get("vary"), "authorization");
});

Deno.test("each path asks its own function", async () => {
  const rpcs = {
    "": "query_signals",
    "/": "query_signals",
    "/count": "count_signals",
    "/latest": "latest_signals",
    "/facets": "signal_facets",
    "/time-buckets": "time_buckets",
    "/rolling-statistics": "rolling_statistics",
    "/correlations": "correlations",
    "/co-occurrence": "co_occurrence",
    "/heat-map": "heat_map",
  };
  for (const [path, rpc] of Object.entries(rpcs)) {
    const { dependencies, calls, logs } = restThatAnswers(new Response("{}"));
    const response = await handler(get(`${path}?symbols=ES`), dependencies);
    assert.equal(response.status, 200, path);
    assert.equal(calls[0]?.url, `http://rest.test/rest/v1/rpc/${rpc}`);
    assert.deepEqual(JSON.parse(calls[0]!.body), { symbols: ["ES"] });
    assert.equal(logs[0]?.rpc, rpc);
  }
});

Deno.test("there is nothing at other paths", async () => {
  for (
    const path of ["/counts", "/count/", "/COUNT", "/../count", "s", "/constructor", "/%63ount"]
  ) {
    assert.equal((await errorFor(get(path))).code, "not_found", path);
  }
});

Deno.test("each path has its own parameters", async () => {
  for (
    const query of [
      "/count?page_size=1",
      "/latest?statuses=closed",
      "/facets?cursor=c",
      "?exact=true",
    ]
  ) {
    assert.equal((await errorFor(get(query))).code, "invalid_request", query);
  }
});

Deno.test("who has the answer already is told so without it", async () => {
  const ask = async (request: Request, answer = PAGE) => {
    const { dependencies } = restThatAnswers(new Response(answer));
    const response = await handler(request, dependencies);
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  const tag = (await ask(get(""))).headers.get("etag")!;
  for (const path of ["", "/count", "/latest?symbols=ES", "/facets", "/heat-map"]) {
    const again = await ask(get(path, { "if-none-match": tag }));
    assert.deepEqual([again.status, again.text], [304, ""], path);
    assert.equal(again.headers.get("etag"), tag);
    assert.equal(again.headers.get("cache-control"), "private, no-cache");
    assert.equal(again.headers.get("vary"), "authorization");
    assert.equal(again.headers.get("content-type"), null);
    assert.match(again.headers.get("access-control-expose-headers")!, /\betag\b/);
  }
  const changed = await ask(get("", { "if-none-match": tag }), '{"signals": [1]}');
  assert.deepEqual([changed.status, changed.text], [200, '{"signals": [1]}']);
  const posted = post({});
  posted.headers.set("if-none-match", tag);
  assert.equal((await ask(posted)).status, 200);
});

Deno.test("an answer that can no longer change is kept for a while", () => {
  const DAY = 86_400_000;
  const at = (ms: number) => new Date(EXAMPLE_NOW + ms).toISOString();
  const kept = (path: string, asked: Record<string, unknown>) =>
    lifetimeOf(asked, questionAt(`/query-signals${path}`)!, EXAMPLE_NOW) !== "private, no-cache";
  const old = at(-8 * DAY);
  const fields = ["seq", "symbol", "price"];
  assert.equal(kept("", { to: old, fields }), true);
  assert.equal(kept("", { to: old, fields, sort: "oldest", cursor: "c" }), true);
  assert.equal(kept("/count", { to: old, symbols: ["ES"] }), true);
  assert.equal(kept("/facets", { to: old }), true);
  assert.equal(kept("/heat-map", { from: at(-9 * DAY), to: old }), true);
  // Signals may still come, or change what is told of them.
  assert.equal(kept("", { fields }), false);
  assert.equal(kept("", { to: at(-7 * DAY), fields }), false);
  assert.equal(kept("", { to: at(-7 * DAY).replace("Z", "+02:00"), fields }), true);
  assert.equal(kept("", { to: old }), false);
  assert.equal(kept("", { to: old, fields: [...fields, "status"] }), false);
  assert.equal(kept("", { to: old, fields: ["outcome"] }), false);
  assert.equal(kept("", { to: old, fields, statuses: ["closed"] }), false);
  assert.equal(kept("/count", { to: old, statuses: ["closed"] }), false);
  assert.equal(kept("/latest", {}), false);
  // By seq the end of the answer is not the end of the range.
  assert.equal(kept("", { to: old, fields, after_seq: 0 }), false);
  assert.equal(kept("", { to: old, fields, sort: "-confidence" }), false);
});

Deno.test("a query string and a JSON body ask for the same", async () => {
  const asked = {
    traders: TRADERS,
    symbols: ["BTC-USD", "ES"],
    symbol_prefix: "B",
    timeframes: ["1m"],
    actions: ["enter_long", "exit_long"],
    statuses: ["closed", "expired"],
    tags: ["breakout"],
    min_confidence: 0.5,
    max_confidence: 1,
    min_price: -37.5,
    max_price: 1e15,
    from: "2026-11-20T00:00:00+02:00",
    to: "2026-11-22T00:00:00.5Z",
    after_seq: "9007199254740993",
    until_seq: "9223372036854775807",
    sort: "-symbol",
    cursor: "c1",
    page_size: 1000,
    fields: ["seq", "symbol"],
  };
  const query = `?traders=${TRADERS}&symbols=BTC-USD&symbols=ES&symbol_prefix=B` +
    "&timeframes=1m&actions=enter_long,exit_long&statuses=closed,expired&tags=breakout" +
    "&min_confidence=0.5&max_confidence=1&min_price=-37.5&max_price=1e15&from=2026-11-20T00:00:00%2B02:00" +
    "&to=2026-11-22T00:00:00.5Z&after_seq=9007199254740993&until_seq=9223372036854775807" +
    "&sort=-symbol&cursor=c1&page_size=1000&fields=seq,symbol";
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
    symbol_prefix: ["", "B%", "B*", "A".repeat(33)],
    timeframes: ["1m,,5m"],
    statuses: [""],
    tags: ["", Array(101).fill("A").join()],
    min_confidence: ["1.1", "-0.1", "NaN", "", "0x1", "1e999"],
    max_confidence: ["1.1"],
    min_price: ["-1.1e15", "NaN", "cheap"],
    max_price: ["1.1e15", "Infinity"],
    from: ["yesterday", "2026-11-20T00:00:00+02:00", "2026-02-30T00:00:00Z"],
    to: ["1700000000"],
    after_seq: ["-1", "1.5", "9223372036854775808", ""],
    until_seq: ["-1"],
    sort: ["price", "", "-newest"],
    fields: ["seq,,symbol"],
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
    { max_price: "1" },
    { symbol_prefix: ["B"] },
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

/** A small generator of numbers below one (mulberry32): the same for the same seed. */
function randomFrom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

Deno.test("whatever is asked, the function does not fail", async () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const random = randomFrom(seed);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  const paths = [
    "",
    "/",
    "/count",
    "/latest",
    "/facets",
    "/heat-map",
    "/correlations",
    "/x",
    "/\ud800",
  ];
  const names = [
    "symbols",
    "to",
    "page_size",
    "exact",
    "fields",
    "sort",
    "max_price",
    "__proto__",
    "",
  ];
  const values = [
    "ES",
    "",
    "0",
    "-1",
    "1e400",
    "NaN",
    "true",
    "null",
    "\0",
    "\ud800",
    "%",
    "2026-02-29T00:00:00Z",
    "2026-11-01T00:00:00Z",
    "9".repeat(30),
    ",".repeat(200),
    "A".repeat(5000),
    "{",
    "[]",
  ];
  const json = (depth = 0): unknown =>
    pick<() => unknown>([
      () => pick(values),
      () => null,
      () => pick([0, -1, 1.5, 1e300, true]),
      () => depth > 2 ? [] : [json(depth + 1), json(depth + 1)],
      () => depth > 2 ? {} : { [pick(names)]: json(depth + 1), [pick(names)]: json(depth + 1) },
    ])();
  for (let n = 0; n < 2000; n++) {
    const path = pick(paths);
    const query = Array.from(
      { length: Math.floor(random() * 4) },
      () =>
        `${pick(names)}=${pick([encodeURI, (text: string) => text])(pick(values).toWellFormed())}`,
    ).join("&");
    const body = pick([JSON.stringify(json()), pick(values)]);
    const headers = {
      authorization: `Bearer ${USER_TOKEN}`,
      "if-none-match": pick(values.slice(0, 8)),
    };
    delete (headers as Record<string, string>)[random() < 0.9 ? "if-none-match" : "authorization"];
    const url = `http://function.test/query-signals${path}?${query}`;
    const request = random() < 0.5
      ? new Request(url, { headers })
      : new Request(url, { method: "POST", body, headers });
    const { dependencies } = restThatAnswers(new Response(PAGE));
    const response = await handler(request, dependencies);
    const text = await response.text();
    const why = `seed ${seed}, number ${n}: ${request.method} ${url} ${body}: ${text}`;
    if (response.status === 200) continue;
    const { code } = response.status === 304 ? { code: "invalid_filter" } : JSON.parse(text);
    assert.ok(response.status < 500 && isErrorCode(code), why);
    if (response.status !== 304) assert.equal(contract.errors[code].status, response.status, why);
  }
});
