import type { Dependencies } from "./dependencies.ts";
import { writeLog } from "./log.ts";

export type Environment = Pick<typeof Deno.env, "get">;

/** The dependencies of a deployed function, from the variables that Supabase sets. */
export function dependenciesFrom(environment: Environment): Dependencies {
  return {
    fetch: (input, init) => fetch(input, init),
    supabaseUrl: required(environment.get("SUPABASE_URL"), "SUPABASE_URL").replace(/\/+$/, ""),
    projectKey: keyFrom(environment, "SUPABASE_PUBLISHABLE_KEYS", "SUPABASE_ANON_KEY"),
    log: writeLog,
    newId: () => crypto.randomUUID(),
    milliseconds: () => performance.now(),
    now: () => Date.now(),
  };
}

/** The project's secret key: it passes every row policy. */
export function secretKeyFrom(environment: Environment): string {
  return keyFrom(environment, "SUPABASE_SECRET_KEYS", "SUPABASE_SERVICE_ROLE_KEY");
}

/** Every secret key of the project: whoever shows one of them may do all. */
export function secretKeysFrom(environment: Environment): string[] {
  const keys: Record<string, string> = JSON.parse(environment.get("SUPABASE_SECRET_KEYS") || "{}");
  const legacyKey = environment.get("SUPABASE_SERVICE_ROLE_KEY");
  return [...Object.values(keys), ...(legacyKey ? [legacyKey] : [])];
}

/**
 * A key of the new kind (they come as a JSON map by name) before the legacy one, which a project may
 * have switched off although the variable is still set.
 */
function keyFrom(environment: Environment, names: string, legacyName: string): string {
  const keys: Record<string, string> = JSON.parse(environment.get(names) || "{}");
  return required(
    keys["default"] ?? Object.values(keys)[0] ?? environment.get(legacyName),
    `${names} or ${legacyName}`,
  );
}

export function required(value: string | undefined, name: string): string {
  if (!value) throw new Error(`Cannot start the function: ${name} is not set.`);
  return value;
}
