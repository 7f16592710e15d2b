/** Makes access tokens that the project accepts as its own. */
export interface TokenSigner {
  readonly sign: (claims: object) => Promise<string>;
}

const EC = { name: "ECDSA", namedCurve: "P-256" };
const ECDSA = { name: "ECDSA", hash: "SHA-256" };
const HMAC = { name: "HMAC", hash: "SHA-256" };
/** RFC 7518, section 3.2: a key of HS256 is at least as long as its hash. */
const SHORTEST_SECRET = 32;

const NO_PRIVATE_KEY = "it is no private key on the curve P-256";

/** What is long enough to be taken for a JWT secret and is something else: how it looks, and why not. */
const MISTAKEN: readonly (readonly [RegExp, string])[] = [
  [/^\s*\[/, "it is a list: give the one key that is in it"],
  [/-----BEGIN /, "it is PEM: give the key as a JWK"],
  [/^\s*["']/, "it begins with a quotation mark"],
  [/^(eyJ[\w-]*\.|sb_|sgk_)/, "it is an API key or a token: give the key that signs tokens"],
  [/^\s|\s$/, "it begins or ends with white space"],
];

/**
 * A signer from the function's secret.
 *
 * The secret is a private P-256 JWK with its `kid`, as `supabase gen signing-key` prints it and the
 * project has imported it, for ES256; or the text of the legacy JWT secret, for HS256.
 */
export async function tokenSignerFrom(secret: string): Promise<TokenSigner> {
  if (secret.trimStart().startsWith("{")) return await ellipticSigner(secret);
  const mistaken = MISTAKEN.find(([looks]) => looks.test(secret));
  if (mistaken) throw unusable(mistaken[1]);
  const bytes = new TextEncoder().encode(secret);
  if (bytes.length < SHORTEST_SECRET) throw unusable("a JWT secret has at least 32 bytes");
  const key = await crypto.subtle.importKey("raw", bytes, HMAC, false, ["sign"]);
  return { sign: (claims) => sign(claims, { alg: "HS256", typ: "JWT" }, HMAC, key) };
}

async function ellipticSigner(secret: string): Promise<TokenSigner> {
  const { kid, jwk } = parseJwk(secret);
  const key = await crypto.subtle.importKey("jwk", jwk, EC, false, ["sign"]).catch(() => {
    throw unusable(NO_PRIVATE_KEY);
  });
  const fits = await isPair(key, jwk).catch(() => false);
  if (!fits) throw unusable("its public half is not that of its private half");
  return { sign: (claims) => sign(claims, { alg: "ES256", kid, typ: "JWT" }, ECDSA, key) };
}

/** The project knows the public half: what it does not verify, nobody accepts. */
async function isPair(privateKey: CryptoKey, { kty, crv, x, y }: JsonWebKey): Promise<boolean> {
  const publicKey = await crypto.subtle.importKey("jwk", { kty, crv, x, y }, EC, false, ["verify"]);
  const text = new TextEncoder().encode("signed by one half, verified by the other");
  const signature = await crypto.subtle.sign(ECDSA, privateKey, text);
  return await crypto.subtle.verify(ECDSA, publicKey, signature, text);
}

/** The parts that matter: what else a JWK may say (`key_ops`, `use`, `ext`) differs by its maker. */
function parseJwk(secret: string): { kid: string; jwk: JsonWebKey } {
  let parts: JsonWebKey & { kid?: unknown };
  try {
    parts = JSON.parse(secret);
  } catch {
    throw unusable("it is not valid JSON");
  }
  const { kid, kty, crv, x, y, d, alg } = parts;
  if (typeof kid !== "string" || kid === "") throw unusable("it has no kid");
  if (d === undefined || crv !== EC.namedCurve) throw unusable(NO_PRIVATE_KEY);
  if (alg !== undefined && alg !== "ES256") throw unusable("its alg is not ES256");
  return { kid, jwk: { kty, crv, x, y, d } };
}

async function sign(
  claims: object,
  header: object,
  algorithm: { name: string; hash: string },
  key: CryptoKey,
): Promise<string> {
  const text = `${encoded(JSON.stringify(header))}.${encoded(JSON.stringify(claims))}`;
  const signature = await crypto.subtle.sign(algorithm, key, new TextEncoder().encode(text));
  return `${text}.${base64url(new Uint8Array(signature))}`;
}

function encoded(text: string): string {
  return base64url(new TextEncoder().encode(text));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Says why, and never what the secret holds. */
function unusable(why: string): Error {
  return new Error(`Cannot start the function: SIGNAL_JWT_SIGNING_KEY cannot sign: ${why}.`);
}
