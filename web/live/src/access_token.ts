/**
 * Where access tokens come from: called before each use, so it should remember the token, and
 * renew it before it ends. `refresh` says that the last one was refused.
 */
export type AccessToken = (options: { readonly refresh: boolean }) => Promise<string>;

/** The account that an access token names. */
export function accountOf(token: string): string {
  try {
    const claims = JSON.parse(atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/")));
    if (typeof claims.sub === "string") return claims.sub;
  } catch {
    // Told below.
  }
  throw new TypeError("Cannot follow signals: the access token is not that of a signed-in user.");
}
