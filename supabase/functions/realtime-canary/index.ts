import { dependenciesFrom, secretKeysFrom } from "../_shared/environment.ts";
import { realtimeCanary } from "./handler.ts";

/** Below the 25 seconds that callers such as pg_net can be told to wait. */
const TIMEOUT_MS = 20_000;

/** A JWT, unless the project has keys of the new kind only. */
const legacyKey = Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "";
const serviceToken = legacyKey.startsWith("ey") ? legacyKey : null;

const dependencies = dependenciesFrom(Deno.env);
const handler = realtimeCanary({
  secretKeys: secretKeysFrom(Deno.env),
  serviceToken,
  timeoutMs: TIMEOUT_MS,
});

Deno.serve((request) => handler(request, dependencies));
