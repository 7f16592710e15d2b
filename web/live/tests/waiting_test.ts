/// <reference lib="deno.ns" />

import { rejects } from "node:assert/strict";
import { delay, unlessAborted } from "../src/waiting.ts";

Deno.test("what nobody waits for any more may fail unnoticed", async () => {
  const value = Promise.reject(new Error("nobody is signed in"));
  await rejects(unlessAborted(value, AbortSignal.abort(new Error("closed"))), /closed/);
  await delay(0); // A rejection that nobody handles would end the test here.
});
