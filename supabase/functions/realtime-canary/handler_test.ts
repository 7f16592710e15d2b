import assert from "node:assert/strict";
import { restThatAnswers } from "../_shared/example_exchange.ts";
import { realtimeCanary } from "./handler.ts";

const SECRET = "sb_secret_of_the_test";
const TOKEN = "ey.of.service_role";
const REVOKED = "JwtSignatureError: Failed to validate JWT signature";

/** A Realtime server: it notes the key of each connection and the token of its join. */
function realtime(refuses: (token: string | undefined) => string | null) {
  const seen: (string | null | undefined)[][] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request);
    socket.onmessage = ({ data }) => {
      const { topic, payload: { access_token } } = JSON.parse(data);
      const tell = (event: string, payload: object) =>
        socket.send(JSON.stringify({ topic, event, payload, ref: null }));
      seen.push([new URL(request.url).searchParams.get("apikey"), access_token]);
      const reason = refuses(access_token);
      if (reason !== null) return tell("phx_reply", { status: "error", response: { reason } });
      tell("system", { status: "ok", message: "Replication connection established" });
      tell("broadcast", { event: "canary" });
    };
    return response;
  });
  return { seen, url: `http://127.0.0.1:${server.addr.port}`, stop: () => server.shutdown() };
}

async function fliesWith(serviceToken: string | null, refuses: (token?: string) => string | null) {
  const { seen, url, stop } = realtime(refuses);
  const ok = () => Response.json(null);
  const { dependencies } = restThatAnswers(ok(), ok());
  const fly = realtimeCanary({ secretKeys: [SECRET], serviceToken, timeoutMs: 5000 });
  const request = new Request(url, { method: "POST", headers: { apikey: SECRET } });
  const { status } = await fly(request, { ...dependencies, supabaseUrl: url });
  await stop();
  return { status, seen };
}

Deno.test("a token of service_role keeps the secret out of the URL", async () => {
  const { status, seen } = await fliesWith(TOKEN, () => null);
  assert.equal(status, 200);
  assert.deepEqual(seen, [["project-key", TOKEN]]);
});

Deno.test("without one, or where it is refused, the secret key opens the connection", async () => {
  assert.deepEqual((await fliesWith(null, () => null)).seen, [[SECRET, undefined]]);
  const { status, seen } = await fliesWith(TOKEN, (token) => token ? REVOKED : null);
  assert.equal(status, 200);
  assert.deepEqual(seen, [["project-key", TOKEN], [SECRET, undefined]]);
});
