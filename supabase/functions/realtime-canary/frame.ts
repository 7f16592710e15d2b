import { isObject } from "../_shared/signal.ts";

/** What a frame of the Realtime server says of the canary's channel. */
export type News =
  | { readonly kind: "ready" }
  | { readonly kind: "delivered" }
  | { readonly kind: "refused"; readonly reason: string };

/**
 * The frame that joins a private channel, asking to be told when database messages are streamed.
 * With a token it joins as whoever that names, else as whoever the key of the connection does.
 */
export function joinFrame(topic: string, accessToken: string | null): string {
  return JSON.stringify({
    topic: `realtime:${topic}`,
    event: "phx_join",
    ref: "1",
    join_ref: "1",
    payload: {
      config: {
        private: true,
        broadcast: { self: false, ack: false, replication_ready: true },
        presence: { enabled: false },
        postgres_changes: [],
      },
      ...(accessToken === null ? {} : { access_token: accessToken }),
    },
  });
}

/** Read a frame of protocol version 1; null when it tells the canary nothing. */
export function newsOf(text: string, topic: string): News | null {
  const frame = parse(text);
  if (!isObject(frame) || frame.topic !== `realtime:${topic}`) return null;
  const payload = isObject(frame.payload) ? frame.payload : {};
  switch (frame.event) {
    case "broadcast":
      return payload.event === "canary" ? { kind: "delivered" } : null;
    case "phx_reply":
      return payload.status === "ok" ? null : { kind: "refused", reason: reasonOf(payload) };
    case "system":
      if (payload.status !== "ok") return { kind: "refused", reason: String(payload.message) };
      return payload.message === "Replication connection established" ? { kind: "ready" } : null;
    case "phx_error":
    case "phx_close":
      return { kind: "refused", reason: "the server closed the channel" };
    default:
      return null;
  }
}

function reasonOf(reply: Record<string, unknown>): string {
  return isObject(reply.response) ? String(reply.response.reason) : "the join was refused";
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
