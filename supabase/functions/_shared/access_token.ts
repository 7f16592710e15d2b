import { contract } from "./contract.ts";
import { ApiError } from "./errors.ts";
import { isObject } from "./signal.ts";

const UUID = new RegExp(contract.patterns.uuid);
const BEARER_JWT = /^Bearer +([\w-]+\.([\w-]+)\.[\w-]+)$/i;

/**
 * The access token of a signed-in user from the Authorization header.
 *
 * Looks only at the form: the REST API verifies signature and expiry of what is passed on to it.
 * A project key (`sb_…`, or the legacy anon and service_role tokens) names no user and is refused.
 */
export function accessTokenOf(headers: Headers): string {
  const [, token, payload] = BEARER_JWT.exec(headers.get("authorization") ?? "") ?? [];
  if (token === undefined || payload === undefined || !namesUser(payload)) {
    throw new ApiError("unauthorized");
  }
  return token;
}

function namesUser(payload: string): boolean {
  try {
    const claims: unknown = JSON.parse(atob(payload.replaceAll("-", "+").replaceAll("_", "/")));
    return isObject(claims) && typeof claims.sub === "string" && UUID.test(claims.sub);
  } catch {
    return false;
  }
}
