/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { lossOf } from "../src/loss.ts";
import { REFUSALS } from "./scenarios.ts";

for (const { said, reason, renews_token } of REFUSALS) {
  Deno.test(`refusal: ${said}`, () => {
    deepStrictEqual(lossOf(said), { reason, renewsToken: renews_token, said });
  });
}

Deno.test("an unanswered heartbeat is told apart from a connection that ended", () => {
  strictEqual(lossOf("heartbeat timeout").reason, "silent");
  strictEqual(lossOf("socket closed: 1012").reason, "connection_lost");
});
