import type { Dependencies } from "./dependencies.ts";
import { writeLog } from "./log.ts";

/** The dependencies of a deployed function, from the variables that Supabase sets. */
export function dependenciesFrom(environment: Pick<typeof Deno.env, "get">): Dependencies {
  return {
    fetch: (input, init) => fetch(input, init),
    supabaseUrl: required(environment.get("SUPABASE_URL"), "SUPABASE_URL").replace(/\/+$/, ""),
    projectKey: projectKey(environment),
    log: writeLog,
    newId: () => crypto.randomUUID(),
    milliseconds: () => performance.now(),
  };
}

/**
 * A publishable key (they come as a JSON map by name) before the legacy anon key, which a project may
 * have switched off although the variable is still set.
 */
function projectKey(environment: Pick<typeof Deno.env, "get">): string {
  const keys: Record<string, string> = JSON.parse(
    environment.get("SUPABASE_PUBLISHABLE_KEYS") || "{}",
  );
  return required(
    keys["default"] ?? Object.values(keys)[0] ?? environment.get("SUPABASE_ANON_KEY"),
    "SUPABASE_PUBLISHABLE_KEYS or SUPABASE_ANON_KEY",
  );
}

function required(value: string | undefined, name: string): string {
  if (!value) throw new Error(`Cannot start the function: ${name} is not set.`);
  return value;
}
