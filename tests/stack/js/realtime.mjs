// The official JavaScript client, driven by JSON lines on stdin and telling what it sees on stdout.
// Commands: {do: <name of a command below>, ...}.
// Events: {topic, and one of state, message, system, result, joined, left}.

import { createInterface } from "node:readline";
import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";

const { url, key, version, ...given } = JSON.parse(process.argv[2]);
let token = given.token;
const supabase = createClient(url, key, {
  ...(token && { accessToken: () => Promise.resolve(token) }),
  auth: { persistSession: false, autoRefreshToken: false },
  realtime: { transport: WebSocket, ...(version && { vsn: version }) },
});
if (token) await supabase.realtime.setAuth();

const channels = new Map();
const tell = (event) => process.stdout.write(JSON.stringify(event) + "\n");

function plain(message) {
  const { payload } = message;
  if (!(payload instanceof ArrayBuffer)) return message;
  return { ...message, payload: { bytes: [...new Uint8Array(payload)] } };
}

function followPresence(topic, channel) {
  channel
    .on(
      "presence",
      { event: "join" },
      ({ key, newPresences }) => tell({ topic, joined: [key, newPresences[0].mood] }),
    )
    .on(
      "presence",
      { event: "leave" },
      ({ key, leftPresences }) => tell({ topic, left: [key, leftPresences[0].mood] }),
    );
}

const commands = {
  join({ topic, config }) {
    const channel = supabase.channel(topic, { config });
    channels.set(topic, channel);
    if (config.presence) followPresence(topic, channel);
    channel
      .on("broadcast", { event: "*" }, (message) => tell({ topic, message: plain(message) }))
      .on("system", {}, (system) => tell({ topic, system: system.message }))
      .subscribe((state, error) => tell({ topic, state, reason: error?.message ?? null }));
  },
  async send({ topic, event, payload }) {
    const content = payload.bytes ? new Uint8Array(payload.bytes).buffer : payload;
    const result = await channels.get(topic).send({ type: "broadcast", event, payload: content });
    tell({ topic, result });
  },
  async httpSend({ topic, event, payload }) {
    await channels.get(topic).httpSend(event, payload);
  },
  async track({ topic, payload }) {
    tell({ topic, result: await channels.get(topic).track(payload) });
  },
  async leave({ topic }) {
    tell({ topic, result: await supabase.removeChannel(channels.get(topic)) });
  },
  async setAuth(command) {
    token = command.token;
    await supabase.realtime.setAuth();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await commands[command.do](command);
}
await supabase.removeAllChannels();
process.exit(0);
