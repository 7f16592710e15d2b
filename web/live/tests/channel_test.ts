/// <reference lib="deno.ns" />
/** The channel over a WebSocket that does what no stack does on demand. */

import { deepStrictEqual, strictEqual } from "node:assert/strict";
import type { RealtimeClientOptions } from "@supabase/realtime-js";
import { LiveChannel } from "../src/channel.ts";

/** A connection that lets every join succeed and takes its time to close, or cannot be opened. */
class StubbornSocket {
  static made: StubbornSocket[] = [];
  static refused = 0;
  readonly CONNECTING = 0;
  readonly OPEN = 1;
  readonly CLOSING = 2;
  readonly CLOSED = 3;
  readonly protocol = "";
  readonly url: string;
  readyState = 0;
  joinRef: string | null = null;
  joins = 0;
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: unknown = null;
  onerror: ((event: Event) => void) | null = null;

  constructor(address: string | URL) {
    this.url = String(address);
    StubbornSocket.made.push(this);
    const isRefused = StubbornSocket.refused-- > 0;
    queueMicrotask(() => {
      this.readyState = isRefused ? this.CLOSED : this.OPEN;
      if (isRefused) this.onerror?.(new Event("error"));
      else this.onopen?.(new Event("open"));
    });
  }

  send(text: string): void {
    const [joinRef, ref, topic, event] = JSON.parse(text);
    if (event !== "phx_join") return;
    this.joinRef = joinRef;
    this.joins++;
    this.#deliver([joinRef, ref, topic, "phx_reply", { status: "ok", response: {} }]);
  }

  broadcast(payload: unknown): void {
    const event = { type: "broadcast", event: "signals_ingested", payload };
    this.#deliver([this.joinRef, null, "realtime:topic", "broadcast", event]);
  }

  close(): void {
    if (this.readyState !== this.CLOSED) this.readyState = this.CLOSING;
  }

  addEventListener(): void {}
  removeEventListener(): void {}

  #deliver(frame: unknown): void {
    queueMicrotask(() => this.onmessage?.({ data: JSON.stringify(frame) }));
  }
}

class Listener {
  readonly heard: string[] = [];
  #wake = () => {};

  readonly onJoined = () => this.#hear("joined");
  readonly onReplicationReady = () => this.#hear("ready");
  readonly onLost = ({ said }: { said: string }) => this.#hear(`lost: ${said}`);
  readonly onEventBroadcast = () => this.#hear("event broadcast");
  readonly onBroadcast = (payload: unknown) => this.#hear(`broadcast ${JSON.stringify(payload)}`);
  readonly onUnreadable = () => this.#hear("unreadable");

  async until(count: number): Promise<string[]> {
    while (this.heard.length < count) await new Promise<void>((wake) => this.#wake = wake);
    return this.heard;
  }

  #hear(what: string): void {
    this.heard.push(what);
    this.#wake();
  }
}

/** Run a test, then stop the timer of 10 s that the library leaves for every closed connection. */
async function withoutLeftTimers(test: () => Promise<void>): Promise<void> {
  const { setTimeout } = globalThis;
  const timers: ReturnType<typeof setTimeout>[] = [];
  globalThis.setTimeout = ((...given: Parameters<typeof setTimeout>) => {
    const timer = setTimeout(...given);
    timers.push(timer);
    return timer;
  }) as typeof setTimeout;
  try {
    await test();
  } finally {
    globalThis.setTimeout = setTimeout;
    for (const timer of timers) clearTimeout(timer);
  }
}

function channelFor(listener: Listener): LiveChannel {
  StubbornSocket.made = [];
  return new LiveChannel("topic", {
    url: "http://localhost",
    key: "a key",
    accessToken: () => Promise.resolve("a token"),
    transport: StubbornSocket as unknown as RealtimeClientOptions["transport"],
  }, listener);
}

/** No heartbeat is answered, and no close either, as when the network is gone without a word. */
async function loseOneAndHoldAnother(): Promise<void> {
  const listener = new Listener();
  const channel = channelFor(listener);
  const first = channel.hold();
  await listener.until(1);
  const [socket] = StubbornSocket.made;
  socket!.broadcast(1);
  await listener.until(2);
  await listener.until(3);
  socket!.broadcast(2);
  await first;
  const second = channel.hold();
  await listener.until(4);
  channel.leave("connection_lost", "the end");
  await second;

  deepStrictEqual(listener.heard, [
    "joined",
    "broadcast 1",
    "lost: heartbeat timeout",
    "joined",
    "lost: the end",
  ]);
  strictEqual(StubbornSocket.made.length, 2);
}

async function refuseTwoAndHoldTheThird(): Promise<void> {
  const listener = new Listener();
  const channel = channelFor(listener);
  StubbornSocket.refused = 2;
  await channel.hold();
  await channel.hold();
  const third = channel.hold();
  await listener.until(3);
  channel.leave("connection_lost", "the end");
  await third;

  const failure = "lost: channel error: transport failure";
  deepStrictEqual(listener.heard, [failure, failure, "joined", "lost: the end"]);
  deepStrictEqual(StubbornSocket.made.map(({ joins }) => joins), [0, 0, 1]);
}

Deno.test(
  "what a lost connection still brings is not the next one's, and a slow close does not stop that",
  () => withoutLeftTimers(loseOneAndHoldAnother),
);
Deno.test(
  "a join that could not be sent is not sent with the next one",
  () => withoutLeftTimers(refuseTwoAndHoldTheThird),
);
