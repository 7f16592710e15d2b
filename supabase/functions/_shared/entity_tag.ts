/** A strong entity tag: equal for answers that are equal byte by byte. */
export async function entityTagOf(body: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body));
  const digits = Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0"));
  return `"${digits.join("")}"`;
}

/** Whether an If-None-Match header names the tag: the caller has this answer already. */
export function isNamed(tag: string, ifNoneMatch: string | null): boolean {
  if (ifNoneMatch === null) return false;
  return ifNoneMatch.split(",").some((each) => {
    // A cache on the way may have weakened it (RFC 9110, 13.1.2).
    const named = each.trim().replace(/^W\//, "");
    return named === tag || named === "*";
  });
}
