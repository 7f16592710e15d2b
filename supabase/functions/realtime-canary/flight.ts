import { joinFrame, newsOf } from "./frame.ts";

/** A broadcast that was not received; the message says how far it came. */
export class NotDelivered extends Error {}

export interface Flight {
  /** The project's Realtime endpoint, with a key. */
  readonly socketUrl: string;
  /** Of somebody who may join every channel; null when the key itself may. */
  readonly accessToken: string | null;
  readonly topic: string;
  /** Has the database broadcast to the topic; answers `null`, or why it cannot, as JSON. */
  readonly send: () => Promise<string>;
  readonly milliseconds: () => number;
  readonly timeoutMs: number;
}

/**
 * Join a private topic, have a broadcast sent to it, and return after how many milliseconds it
 * was received.
 *
 * Throws {@link NotDelivered}, or what `send` throws.
 */
export async function fly(flight: Flight): Promise<number> {
  const { topic, milliseconds } = flight;
  const socket = new WebSocket(flight.socketUrl);
  let stage = "connected";
  let sentAt = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  try {
    return await new Promise<number>((resolve, reject) => {
      const fail = (why: string) => reject(new NotDelivered(`not ${stage}: ${why}`));
      timer = setTimeout(() => fail("out of time"), flight.timeoutMs);
      socket.onopen = () => {
        stage = "joined";
        socket.send(joinFrame(topic, flight.accessToken));
      };
      socket.onclose = ({ code }) => fail(`the connection was closed with code ${code}`);
      socket.onerror = () => fail("the connection failed");
      socket.onmessage = ({ data }) => {
        const news = newsOf(String(data), topic);
        if (news?.kind === "refused") fail(news.reason);
        if (news?.kind === "delivered") resolve(milliseconds() - sentAt);
        if (news?.kind === "ready") {
          stage = "sent";
          sentAt = milliseconds();
          flight.send().then((error) => {
            if (error !== "null") fail(error);
            stage = "delivered";
          }, reject);
        }
      };
    });
  } finally {
    clearTimeout(timer);
    socket.close();
  }
}
