import type { Dependencies } from "./dependencies.ts";
import type { LogRecord } from "./log.ts";

export const EXAMPLE_NOW = Date.parse("2026-11-20T12:00:00Z");

/** What a handler sent to the REST API in a test. */
export interface RestCall {
  readonly url: string;
  readonly headers: Headers;
  readonly body: string;
}

/**
 * Dependencies whose `fetch` stands for the REST API: it records each call and answers with the
 * next of the given answers. For tests of what a handler makes of them; the scenarios in
 * `tests/functions` run against the real stack.
 */
export function restThatAnswers(...answers: readonly (Response | Error)[]): {
  readonly dependencies: Dependencies;
  readonly calls: RestCall[];
  readonly logs: LogRecord[];
} {
  const calls: RestCall[] = [];
  const logs: LogRecord[] = [];
  const left = [...answers];
  const dependencies: Dependencies = {
    supabaseUrl: "http://rest.test",
    projectKey: "project-key",
    newId: () => "new-id",
    milliseconds: () => 0,
    now: () => EXAMPLE_NOW,
    log: (record) => logs.push(record),
    fetch: async (url, init) => {
      const body = await new Response(init.body).text();
      calls.push({ url, headers: new Headers(init.headers), body });
      const answer = left.shift();
      if (answer === undefined) throw new Error("the test has no answer for this call");
      if (answer instanceof Error) throw answer;
      return answer;
    },
  };
  return { dependencies, calls, logs };
}

/** An access token by its form; nobody signed it. */
export function unsignedToken(claims: object): string {
  const part = (value: object) =>
    btoa(JSON.stringify(value)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return `${part({ alg: "ES256" })}.${part(claims)}.c2lnbmF0dXJl`;
}

export const USER_TOKEN = unsignedToken({ sub: "7e57ab1e-0000-4000-8000-000000000001" });
