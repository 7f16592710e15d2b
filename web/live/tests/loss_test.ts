/// <reference lib="deno.ns" />
import { deepStrictEqual, strictEqual } from "node:assert/strict";
import { leastPauseMs, lossOf } from "../src/loss.ts";
import { REFUSALS } from "./scenarios.ts";

for (const { said, reason, renews_token } of REFUSALS) {
  Deno.test(`refusal: ${said}`, () => {
    deepStrictEqual(lossOf(said), { reason, renewsToken: renews_token, said });
  });
}

Deno.test("a restart of the server brings everybody back spread, anything else at once", () => {
  for (const said of ["socket closed: 1001", "socket closed: 1012", "RealtimeRestarting: wait"]) {
    deepStrictEqual([0, 1].map((drawn) => leastPauseMs(1, lossOf(said), () => drawn)), [0, 3000]);
  }
  strictEqual(leastPauseMs(1, lossOf("socket closed: 1006"), () => 1), 0);
});

Deno.test("a limit is given time, and more of it each time", () => {
  const loss = lossOf("Too many messages per second");
  const pauses = [1, 2, 9].map((attempt) => leastPauseMs(attempt, loss, () => 0));
  deepStrictEqual(pauses, [2000, 4000, 4000]);
});

Deno.test("an unanswered heartbeat is told apart from a connection that ended", () => {
  strictEqual(lossOf("heartbeat timeout").reason, "silent");
  strictEqual(lossOf("socket closed: 1012").reason, "connection_lost");
});
