/// <reference lib="deno.ns" />
/** What the service is asked. */

import { deepStrictEqual, rejects } from "node:assert/strict";
import { smaller } from "../src/coverage.ts";
import { Service, UnansweredError } from "../src/service.ts";

const QUERY = { afterSeq: 7, pageSize: 1000, doubt: 1 };

Deno.test("a page that goes unanswered is asked for by halves, from the same place", async () => {
  const asked: unknown[] = [];
  const service = new Service({
    url: "http://localhost",
    key: "a key",
    accessToken: () => Promise.resolve("a token"),
    fetch: (_, request) => {
      const { after_seq, page_size } = JSON.parse(String(request?.body));
      asked.push([after_seq, page_size]);
      return Promise.resolve(new Response(null, { status: 504 }));
    },
  });
  const { signal } = new AbortController();
  for (const unanswered of [0, 1, 2]) {
    await rejects(service.page({}, QUERY, unanswered, signal), UnansweredError);
    await rejects(service.eventPage({}, QUERY, unanswered, signal), UnansweredError);
  }
  deepStrictEqual(asked, [1000, 1000, 500, 500, 250, 250].map((size) => [7, size]));
});

Deno.test("a page does not become smaller than ten, unless the room is", () => {
  deepStrictEqual(smaller(QUERY, 60).pageSize, 10);
  deepStrictEqual(smaller({ ...QUERY, pageSize: 4 }, 3).pageSize, 4);
});
