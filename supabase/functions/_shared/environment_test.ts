import assert from "node:assert/strict";
import { dependenciesFrom, secretKeyFrom } from "./environment.ts";

const environment = (variables: Record<string, string>) => ({
  get: (name: string): string | undefined => variables[name],
});

Deno.test("a publishable key is used before the legacy anon key", () => {
  const keyOf = (variables: Record<string, string>) =>
    dependenciesFrom(environment({ SUPABASE_URL: "http://x/", ...variables })).projectKey;
  const publishable = JSON.stringify({ other: "sb_other", default: "sb_default" });
  assert.equal(
    keyOf({ SUPABASE_ANON_KEY: "anon", SUPABASE_PUBLISHABLE_KEYS: publishable }),
    "sb_default",
  );
  for (const none of ["{}", ""]) {
    assert.equal(keyOf({ SUPABASE_ANON_KEY: "anon", SUPABASE_PUBLISHABLE_KEYS: none }), "anon");
  }
  assert.equal(keyOf({ SUPABASE_PUBLISHABLE_KEYS: '{"web":"sb_web"}' }), "sb_web");
});

Deno.test("a secret key is used before the legacy service_role key", () => {
  const legacy = { SUPABASE_SERVICE_ROLE_KEY: "service_role" };
  const secret = JSON.stringify({ default: "sb_secret" });
  assert.equal(
    secretKeyFrom(environment({ ...legacy, SUPABASE_SECRET_KEYS: secret })),
    "sb_secret",
  );
  assert.equal(secretKeyFrom(environment(legacy)), "service_role");
  assert.throws(() => secretKeyFrom(environment({})), /SUPABASE_SECRET_KEYS/);
});

Deno.test("a missing variable stops the function at its start and is named", () => {
  assert.throws(() => dependenciesFrom(environment({ SUPABASE_ANON_KEY: "anon" })), /SUPABASE_URL/);
  assert.throws(
    () => dependenciesFrom(environment({ SUPABASE_URL: "http://x" })),
    /SUPABASE_PUBLISHABLE_KEYS or SUPABASE_ANON_KEY/,
  );
});
