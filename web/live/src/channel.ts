/**
 * One Realtime channel, from its join to its loss. The only module that touches the WebSocket.
 *
 * `@supabase/realtime-js` reconnects by itself, but it waits up to 10 s for it, never subscribes
 * again after the server closed a channel, and lets a frame that it cannot read escape as an
 * uncaught exception, which ends the process outside of browsers. So each connection is used
 * once: whatever ends it is reported, and the caller holds another. The client object is used
 * again, since each one adds listeners to the page that nothing removes.
 */

import { type RealtimeChannel, RealtimeClient } from "@supabase/realtime-js";
import type { RealtimeClientOptions } from "@supabase/realtime-js";
import type { AccessToken } from "./access_token.ts";
import { type Loss, lossOf } from "./loss.ts";
import type { LossReason } from "./subscription.ts";
import { delay } from "./waiting.ts";

/** Who is told what happens on a channel. */
export interface ChannelListener {
  onJoined(): void;
  onReplicationReady(): void;
  /** It is lost, or cannot be joined; closing what is left of it takes another moment. */
  onLost(loss: Loss): void;
  onBroadcast(payload: unknown): void;
  /** The same of events. */
  onEventBroadcast(payload: unknown): void;
  /** A frame came that cannot be read: it may have been a broadcast. */
  onUnreadable(error: unknown): void;
}

export interface ChannelOptions {
  readonly url: string;
  readonly key: string;
  readonly accessToken: AccessToken;
  readonly transport?: RealtimeClientOptions["transport"];
}

const INGESTED = "signals_ingested";
const ADVANCED = "signals_advanced";
const REPLICATION_READY = "Replication connection established";
/** An unanswered heartbeat ends the connection after as long again: a dead one shows in 4 s. */
const HEARTBEAT_MS = 2000;
/**
 * The server thinks for 5 s before it says why it refuses a join, and connecting comes before: less
 * would hide that a token has expired. A connection that is dead shows by its heartbeats.
 */
const JOIN_MS = 9000;
/** The longest time that a timer can have: the library itself never reconnects. */
const NEVER_MS = 2 ** 31 - 1;
/** The library gives up on a close handshake after 1.5 s. */
const CLOSED_WITHIN_MS = 3000;
const LOOK_EVERY_MS = 50;

export class LiveChannel {
  readonly #topic: string;
  readonly #accessToken: AccessToken;
  readonly #listener: ChannelListener;
  readonly #client: RealtimeClient;
  #tokenWasRefused = false;
  #lose: (loss: Loss) => void = () => {};

  constructor(topic: string, options: ChannelOptions, listener: ChannelListener) {
    this.#topic = topic;
    this.#accessToken = options.accessToken;
    this.#listener = listener;
    const client: RealtimeClient = new RealtimeClient(`${options.url}/realtime/v1`, {
      params: { apikey: options.key },
      // The library asks at every heartbeat, and sends the server a token that is not the last.
      accessToken: () => options.accessToken({ refresh: false }),
      heartbeatIntervalMs: HEARTBEAT_MS,
      reconnectAfterMs: () => NEVER_MS,
      disconnectOnEmptyChannelsAfterMs: 0,
      transport: options.transport,
      decode: (frame, take) => {
        try {
          client.serializer.decode(frame, take);
        } catch (error) {
          listener.onUnreadable(error);
        }
      },
    });
    this.#client = client;
  }

  /** Join, report to the listener, and return when the channel is lost and the way is clear. */
  async hold(): Promise<void> {
    let isLost = false;
    const lost = new Promise<Loss>((resolve) => this.#lose = resolve).then((loss) => {
      isLost = true;
      this.#tokenWasRefused = loss.renewsToken;
      this.#listener.onLost(loss);
      return loss;
    });
    try {
      const refresh = this.#tokenWasRefused;
      const token = await Promise.race([this.#accessToken({ refresh }), lost]);
      if (typeof token !== "string") return;
      await this.#client.setAuth(token);
      // What still comes while it closes must not be taken for the next channel's.
      const channel = this.#join((happened) => {
        if (!isLost) happened();
      });
      await lost;
      await this.#abandon(channel);
    } catch (error) {
      this.#lose(lossOf(String(error)));
      await lost;
    }
  }

  /** Give the channel up. */
  leave(reason: LossReason, said: string): void {
    this.#lose({ reason, renewsToken: false, said });
  }

  #join(tell: (happened: () => void) => void): RealtimeChannel {
    const channel = this.#client.channel(this.#topic, {
      config: { broadcast: { replication_ready: true }, private: true },
    });
    let said = "";
    channel
      .on("broadcast", { event: INGESTED }, ({ payload }) => {
        tell(() => this.#listener.onBroadcast(payload));
      })
      .on("broadcast", { event: ADVANCED }, ({ payload }) => {
        tell(() => this.#listener.onEventBroadcast(payload));
      })
      .on("system", {}, ({ status, message }) => {
        if (status !== "ok") said = message;
        else if (message === REPLICATION_READY) tell(() => this.#listener.onReplicationReady());
      })
      .subscribe((state, error) => {
        if (state === "SUBSCRIBED") tell(() => this.#listener.onJoined());
        else this.#lose(lossOf(said || error?.message || state));
      }, JOIN_MS);
    return channel;
  }

  /** Close the connection, and leave nothing in the library that would act on the next one. */
  async #abandon(channel: RealtimeChannel): Promise<void> {
    const client = this.#client;
    await client.disconnect();
    const deadline = Date.now() + CLOSED_WITHIN_MS;
    while (client.connectionState() !== "closed" && Date.now() < deadline) {
      await delay(LOOK_EVERY_MS);
    }
    // The first does nothing while the library closes by itself, and leaves a timer to reconnect.
    await client.disconnect();
    channel.unsubscribe();
    channel.teardown();
    client.sendBuffer.length = 0; // A join that was never sent.
    for (const callbacks of Object.values(client.stateChangeCallbacks)) callbacks.length = 0;
  }
}
