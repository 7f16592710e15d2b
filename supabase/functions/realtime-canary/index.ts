import { dependenciesFrom, secretKeysFrom } from "../_shared/environment.ts";
import { realtimeCanary } from "./handler.ts";

/** Below the 25 seconds that callers such as pg_net can be told to wait. */
const TIMEOUT_MS = 20_000;

const dependencies = dependenciesFrom(Deno.env);
const handler = realtimeCanary({ secretKeys: secretKeysFrom(Deno.env), timeoutMs: TIMEOUT_MS });

Deno.serve((request) => handler(request, dependencies));
