import assert from "node:assert/strict";
import { contract } from "../_shared/contract.ts";
import { restThatAnswers, USER_TOKEN } from "../_shared/example_exchange.ts";
import { handler } from "./handler.ts";
import { piecesOf } from "./pieces.ts";

const { export_seqs: MOST, export_piece_seqs: PIECE } = contract.limits;

function get(query: string, headers: Record<string, string> = {}): Request {
  return new Request(`http://function.test/export-signals${query}`, {
    headers: { authorization: `Bearer ${USER_TOKEN}`, ...headers },
  });
}

const range = (after_seq: number, until_seq: number) =>
  Response.json({ after_seq, until_seq, last_seq: until_seq });

Deno.test("a range is asked for piece by piece, the header with the first", async () => {
  const { dependencies, calls } = restThatAnswers(
    range(0, 2 * PIECE + 5),
    new Response("header,1,"),
    new Response("2,"),
    new Response("3"),
  );
  const response = await handler(get("?symbols=ES"), dependencies);
  assert.equal(await response.text(), "header,1,2,3");
  assert.deepEqual(calls.map(({ url }) => url.split("/").at(-1)), [
    "export_range",
    ...Array(3).fill("export_signals"),
  ]);
  const asked = calls.slice(1).map(({ body }) => JSON.parse(body));
  assert.deepEqual(
    asked.map(({ after_seq, until_seq, with_header }) => [after_seq, until_seq, with_header]),
    [[0, PIECE, true], [PIECE, 2 * PIECE, false], [2 * PIECE, 2 * PIECE + 5, false]],
  );
  for (const { symbols, format } of asked) assert.deepEqual([symbols, format], [["ES"], "csv"]);
  for (const call of calls.slice(1)) {
    assert.equal(call.headers.get("accept"), "application/octet-stream");
  }
});

Deno.test("a filter is handed on as it was given", async () => {
  const { dependencies, calls } = restThatAnswers(range(0, 5), new Response("rows"));
  const filter = {
    symbol_prefix: "BTC",
    statuses: ["closed", "expired"],
    tags: ["scalp"],
    max_confidence: 0.5,
    min_price: -1,
    max_price: 2.5,
    from: "2026-01-01T00:00:00Z",
  };
  const body = JSON.stringify(filter);
  const headers = { authorization: `Bearer ${USER_TOKEN}`, "content-type": "application/json" };
  const url = "http://function.test/export-signals";
  const response = await handler(
    new Request(url, { method: "POST", body, headers }),
    dependencies,
  );
  assert.equal(response.status, 200);
  assert.deepEqual(JSON.parse(calls[0]!.body), { from: filter.from });
  const asked = JSON.parse(calls[1]!.body);
  assert.deepEqual(asked, { ...asked, ...filter });
});

Deno.test("an answer ends where a function has to, and tells where to go on", async () => {
  const pieces = Array.from({ length: MOST / PIECE }, () => new Response("."));
  const { dependencies } = restThatAnswers(range(10, 3 * MOST), ...pieces);
  const response = await handler(get(""), dependencies);
  assert.equal((await response.text()).length, MOST / PIECE);
  assert.equal(response.headers.get("export-after-seq"), "10");
  assert.equal(response.headers.get("export-until-seq"), String(10 + MOST));
  assert.equal(response.headers.get("export-end-seq"), String(3 * MOST));
});

Deno.test("with both ends given nobody looks for them", async () => {
  const { dependencies, calls } = restThatAnswers(new Response("rows"));
  const query = "?after_seq=5&until_seq=7&with_header=false&with_end=true";
  const response = await handler(get(query), dependencies);
  assert.equal(await response.text(), "rows#");
  assert.equal(JSON.parse(calls[0]!.body).with_header, false);
});

Deno.test("an error before the first row is an answer of its own", async () => {
  const refusal = Response.json(
    { code: "PT403", message: "No.", details: "insufficient_scope" },
    { status: 403 },
  );
  const { dependencies } = restThatAnswers(range(0, 5), refusal);
  const response = await handler(get(""), dependencies);
  assert.equal(response.status, 403);
  assert.equal((await response.json()).code, "insufficient_scope");
});

Deno.test("an error after the first row breaks the answer off", async () => {
  const { dependencies } = restThatAnswers(
    range(0, PIECE + 1),
    new Response("rows"),
    new Response("", { status: 503 }),
  );
  const response = await handler(get(""), dependencies);
  assert.equal(response.status, 200);
  await assert.rejects(response.text());
});

Deno.test("a piece that is cut off is an error of the answer, or breaks it off", async () => {
  const cutOff = () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          controller.enqueue(new TextEncoder().encode("ro"));
          controller.error(new Error("cut off"));
        },
      }),
    );
  const first = restThatAnswers(range(0, 5), cutOff());
  const refused = await handler(get(""), first.dependencies);
  assert.equal(refused.status, 503);
  assert.equal((await refused.json()).code, "unavailable");
  const second = restThatAnswers(range(0, PIECE + 1), new Response("rows"), cutOff());
  const response = await handler(get("?with_end=true"), second.dependencies);
  assert.equal(response.status, 200);
  await assert.rejects(response.text());
});

Deno.test("a piece that stalls after its headers is given up as unavailable", async () => {
  const { dependencies } = restThatAnswers(range(0, 5));
  const stalling: typeof dependencies = {
    ...dependencies,
    fetch: (url, init) => {
      if (!url.endsWith("/export_signals")) return dependencies.fetch(url, init);
      const body = new ReadableStream({
        start(controller) {
          init.signal!.addEventListener("abort", () => controller.error(init.signal!.reason));
        },
      });
      return Promise.resolve(new Response(body));
    },
  };
  const { setTimeout } = globalThis;
  // The time limit passes at once, but after the headers.
  globalThis.setTimeout = ((late: () => void) => setTimeout(late, 50)) as typeof setTimeout;
  try {
    const response = await handler(get(""), stalling);
    assert.equal(response.status, 503);
    assert.equal((await response.json()).code, "unavailable");
  } finally {
    globalThis.setTimeout = setTimeout;
  }
});

Deno.test("only what is short is packed, for who accepts it", async () => {
  const packed = async (query: string, accepted: string) => {
    const { dependencies } = restThatAnswers(
      ...Array.from({ length: 100 }, () => new Response("rows")),
    );
    const response = await handler(get(query, { "accept-encoding": accepted }), dependencies);
    await response.body?.cancel();
    return response.headers.get("content-encoding");
  };
  const short = "?after_seq=0&until_seq=200000";
  assert.equal(await packed(short, "gzip, br"), "gzip");
  assert.equal(await packed(short, "identity"), null);
  assert.equal(await packed(short, "gzip;q=0, br"), null);
  assert.equal(await packed("?after_seq=0&until_seq=200001", "gzip"), null);
});

Deno.test("pieces cover a range once, whatever its size", () => {
  for (const [after, until] of [[0, 0], [3, 3], [0, 1], [5, 14], [5, 15], [5, 16]] as const) {
    const pieces = piecesOf({ after, until }, 5);
    assert.equal(pieces[0]!.after, after);
    assert.equal(pieces.at(-1)!.until, until);
    pieces.slice(1).forEach((piece, n) => assert.equal(piece.after, pieces[n]!.until));
    assert.deepEqual(pieces.map(({ isFirst }) => isFirst), pieces.map((_, n) => n === 0));
    assert.ok(pieces.every((piece) => piece.until - piece.after <= 5));
  }
});
