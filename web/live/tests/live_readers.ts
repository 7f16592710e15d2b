/// <reference lib="deno.ns" />
/**
 * Subscribers in a process of their own, for a test that breaks things around them.
 *
 * Argument: {url, key}. Commands, as JSON lines on stdin, each with the name of a `reader`:
 * {do: "open", tokens, options}: the first token is used until it is refused, then the next one;
 * the options are in the words of the scenarios. {do: "renew", tokens}: these are used from now on.
 * {do: "pause", seconds}: it takes no signal for so long. {do: "close"}.
 * Tells on stdout, as JSON lines with the name of the reader: {state, reason}, {seq, signal_id},
 * {event_seq, of} (of which signal_id) of an event, {problem}, {refresh: true} when it asks for
 * another token, {error} when iterating throws, and {cursor, event_cursor} when it is closed.
 */

import process from "node:process";
import { createInterface } from "node:readline";
import { SignalSubscriber, type StoredSignal } from "../src/subscriber.ts";
import { delay } from "../src/waiting.ts";

const { url, key } = JSON.parse(Deno.args[0]!);

function tell(event: unknown): void {
  process.stdout.write(JSON.stringify(event) + "\n");
}

class Reader {
  readonly #name: string;
  readonly #live: SignalSubscriber;
  readonly #reading: Promise<void>;
  #tokens: string[];
  #pause: Promise<void> = Promise.resolve();

  // deno-lint-ignore no-explicit-any -- JSON of the test
  constructor(reader: string, { tokens, options }: any) {
    this.#name = reader;
    this.#tokens = tokens;
    this.#live = new SignalSubscriber({
      url,
      key,
      accessToken: ({ refresh }) => this.#token(refresh),
      filter: { traders: options.traders, minConfidence: options.min_confidence },
      events: options.events,
      afterEventSeq: options.events && options.after_event_seq,
      ownChannel: options.own_channel,
      afterSeq: options.after_seq,
      bufferSignals: options.buffer_signals,
      onSignal: options.callback_throws && ((signal: StoredSignal) => {
        this.#observe(signal);
        throw new Error("a callback of the test");
      }),
      onState: (state, reason) => tell({ reader, state, reason }),
      onProblem: (problem) => tell({ reader, problem }),
    });
    this.#reading = options.callback_throws ? this.#live.start() : this.#read();
  }

  renew(tokens: string[]): void {
    this.#tokens = tokens;
  }

  pause(seconds: number): void {
    this.#pause = delay(seconds * 1000);
  }

  async close(): Promise<void> {
    const { cursor, eventCursor } = this.#live;
    await this.#live.close();
    await this.#reading;
    tell({ reader: this.#name, cursor, event_cursor: eventCursor });
  }

  #token(refresh: boolean): Promise<string> {
    if (refresh) tell({ reader: this.#name, refresh });
    if (refresh && this.#tokens.length > 1) this.#tokens.shift();
    return Promise.resolve(this.#tokens[0]!);
  }

  async #read(): Promise<void> {
    try {
      for await (const news of this.#live.news()) {
        if (news.kind === "signal") this.#observe(news.signal);
        else tell({ reader: this.#name, event_seq: news.event.seq, of: news.event.signal_id });
        await this.#pause;
      }
    } catch (error) {
      tell({ reader: this.#name, error: String(error) });
    }
  }

  #observe({ seq, signal_id }: StoredSignal): void {
    tell({ reader: this.#name, seq, signal_id });
  }
}

const readers = new Map<string, Reader>();
for await (const line of createInterface({ input: process.stdin })) {
  const { do: what, reader, ...given } = JSON.parse(line);
  if (what === "open") readers.set(reader, new Reader(reader, given));
  if (what === "renew") readers.get(reader)!.renew(given.tokens);
  if (what === "pause") readers.get(reader)!.pause(given.seconds);
  if (what === "close") await readers.get(reader)!.close();
}
process.exit(0); // The library keeps a timer of 10 s for every connection that it closed.
