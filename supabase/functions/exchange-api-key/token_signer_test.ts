import assert from "node:assert/strict";
import { tokenSignerFrom } from "./token_signer.ts";

const SECRET = "a shared secret of more than thirty-two bytes";
const CLAIMS = { sub: "7e57ab1e-0000-4000-8000-000000000001", note: "é ☃" };
const EC = { name: "ECDSA", namedCurve: "P-256" };

async function newKey(): Promise<{ privateJwk: JsonWebKey; publicKey: CryptoKey }> {
  const pair = await crypto.subtle.generateKey(EC, true, ["sign", "verify"]);
  const privateJwk = await crypto.subtle.exportKey("jwk", pair.privateKey);
  return { privateJwk, publicKey: pair.publicKey };
}

function bytesOf(part: string | undefined): Uint8Array<ArrayBuffer> {
  const text = atob((part ?? "").replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

function jsonOf(part: string | undefined): unknown {
  return JSON.parse(new TextDecoder().decode(bytesOf(part)));
}

async function isSigned(token: string, algorithm: object, key: CryptoKey): Promise<boolean> {
  const [header, payload, signature] = token.split(".");
  const signed = new TextEncoder().encode(`${header}.${payload}`);
  return await crypto.subtle.verify(
    algorithm as AlgorithmIdentifier,
    key,
    bytesOf(signature),
    signed,
  );
}

Deno.test("a JWK signs with ES256 and names itself, so that the project finds its public half", async () => {
  const { privateJwk, publicKey } = await newKey();
  // As the CLI prints it: with members that WebCrypto would not take for signing alone.
  const printed = { ...privateJwk, kid: "key-1", use: "sig", alg: "ES256", key_ops: ["verify"] };
  const signer = await tokenSignerFrom(`\n${JSON.stringify(printed)}\n`);
  const token = await signer.sign(CLAIMS);
  const [header, payload] = token.split(".");
  assert.deepEqual(jsonOf(header), { alg: "ES256", kid: "key-1", typ: "JWT" });
  assert.deepEqual(jsonOf(payload), CLAIMS);
  assert.match(token, /^[\w-]+\.[\w-]+\.[\w-]+$/);
  assert.ok(await isSigned(token, { name: "ECDSA", hash: "SHA-256" }, publicKey));
  assert.ok(
    !await isSigned(token.replace(".", ".e"), { name: "ECDSA", hash: "SHA-256" }, publicKey),
  );
});

Deno.test("the legacy JWT secret signs with HS256", async () => {
  const signer = await tokenSignerFrom(SECRET);
  const token = await signer.sign(CLAIMS);
  const bytes = new TextEncoder().encode(SECRET);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes, hmac, false, ["verify"]);
  assert.deepEqual(jsonOf(token.split(".")[0]), { alg: "HS256", typ: "JWT" });
  assert.ok(await isSigned(token, hmac, key));
});

Deno.test("a secret that cannot sign stops the function, and its text is in no message", async () => {
  const { privateJwk } = await newKey();
  const { d, ...publicJwk } = privateJwk;
  const { x, y } = (await newKey()).privateJwk;
  assert.ok(d && x && y);
  const cases = [
    ["short-secret", /at least 32 bytes/],
    [`${SECRET}\n`, /white space/],
    [`"${SECRET}"`, /quotation mark/],
    [`'${JSON.stringify({ ...privateJwk, kid: "key-1" })}'`, /quotation mark/],
    [JSON.stringify([{ ...privateJwk, kid: "key-1" }]), /a list/],
    [`-----BEGIN EC PRIVATE KEY-----\n${d}\n-----END EC PRIVATE KEY-----\n`, /PEM/],
    [`eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.${d}`, /API key or a token/],
    [`sb_secret_${d}`, /API key or a token/],
    [`sgk_${"0".repeat(32)}_${"1".repeat(64)}`, /API key or a token/],
    ['{"kty": "EC", "d": "short-secret"', /not valid JSON/],
    [JSON.stringify(privateJwk), /no kid/],
    [JSON.stringify({ ...publicJwk, kid: "key-1" }), /no private key/],
    [JSON.stringify({ ...privateJwk, kid: "key-1", crv: "P-384" }), /no private key/],
    [JSON.stringify({ ...privateJwk, kid: "key-1", alg: "ES384" }), /not ES256/],
    [JSON.stringify({ ...privateJwk, kid: "key-1", x, y }), /public half/],
    [JSON.stringify({ ...privateJwk, kid: "key-1", x: "AA" }), /public half/],
    [JSON.stringify({ keys: [{ ...privateJwk, kid: "key-1" }] }), /no kid/],
    [JSON.stringify({ kty: "oct", k: "c2hvcnQtc2VjcmV0", kid: "key-1" }), /no private key/],
  ] as const;
  for (const [secret, why] of cases) {
    await assert.rejects(tokenSignerFrom(secret), (error: Error) => {
      assert.match(error.message, why);
      assert.ok(!error.message.includes("short-secret") && !error.message.includes(d));
      return true;
    });
  }
});
