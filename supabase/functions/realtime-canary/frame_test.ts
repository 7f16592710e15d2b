import assert from "node:assert/strict";
import { joinFrame, newsOf } from "./frame.ts";

const TOPIC = "canary:7e57ab1e-0000-4000-8000-000000000001";

function frame(event: string, payload: unknown, topic = `realtime:${TOPIC}`): string {
  return JSON.stringify({ topic, event, payload, ref: null });
}

Deno.test("the join is private and asks when the database is streamed", () => {
  const { topic, event, payload: { config, ...rest } } = JSON.parse(joinFrame(TOPIC, null));
  assert.equal(`${topic} ${event}`, `realtime:${TOPIC} phx_join`);
  assert.equal(config.private, true);
  assert.equal(config.broadcast.replication_ready, true);
  assert.deepEqual(rest, {}, "nothing else, so that the key of the connection counts");
});

Deno.test("it joins as the token says", () => {
  assert.equal(JSON.parse(joinFrame(TOPIC, "a token")).payload.access_token, "a token");
});

Deno.test("it is ready when the replication is, not when it has joined", () => {
  const joined = frame("phx_reply", { status: "ok", response: { postgres_changes: [] } });
  assert.equal(newsOf(joined, TOPIC), null);
  const ready = {
    status: "ok",
    extension: "system",
    message: "Replication connection established",
  };
  assert.deepEqual(newsOf(frame("system", ready), TOPIC), { kind: "ready" });
  assert.equal(newsOf(frame("system", { ...ready, message: "Subscribed" }), TOPIC), null);
});

Deno.test("it is delivered by its own broadcast only", () => {
  const payload = { type: "broadcast", event: "canary", payload: {} };
  assert.deepEqual(newsOf(frame("broadcast", payload), TOPIC), { kind: "delivered" });
  assert.equal(newsOf(frame("broadcast", { ...payload, event: "other" }), TOPIC), null);
  assert.equal(newsOf(frame("broadcast", payload, "realtime:canary:other"), TOPIC), null);
});

Deno.test("every way to be refused has its reason", () => {
  const refusals: [string, string][] = [
    [
      frame("phx_reply", { status: "error", response: { reason: "Unauthorized: no" } }),
      "Unauthorized: no",
    ],
    [frame("phx_reply", { status: "error", response: "odd" }), "the join was refused"],
    [frame("system", { status: "error", message: "Too many messages" }), "Too many messages"],
    [frame("phx_close", {}), "the server closed the channel"],
    [frame("phx_error", {}), "the server closed the channel"],
  ];
  for (const [text, reason] of refusals) {
    assert.deepEqual(newsOf(text, TOPIC), { kind: "refused", reason });
  }
});

Deno.test("what is no frame tells nothing", () => {
  for (const text of ["", "{", "null", "[1]", frame("heartbeat", {}, "phoenix")]) {
    assert.equal(newsOf(text, TOPIC), null, text);
  }
});
