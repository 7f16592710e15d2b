/**
 * One of the two rows that an account grows, its signals or their events. No I/O, no clock.
 *
 * What a subscription has of it, and whether the channel tells of what is stored of it: each time
 * the database shows a seq that no broadcast has told of, one has to follow within a moment.
 * Otherwise broadcasts are missing, and stay so until the channel proves itself: by a broadcast
 * that is there in time for what the database has shown, or, after another join, by an answer that
 * shows nothing that was not pushed.
 */

import type { Announcement, Coverage, Numbered } from "./coverage.ts";

/** The signals of an account, or their events. */
export class Strand<T extends Numbered> {
  readonly coverage: Coverage<T>;
  /** Whether the channel does not tell of what is stored. */
  missing = false;
  /** Up to which seq something has to come, and since when that is known. */
  behind: { readonly seq: number; readonly since: number } | null = null;
  #pushed = 0;
  #answerableAt: number | null = null;
  #unpushed: { readonly seq: number; readonly until: number } | null = null;

  constructor(coverage: Coverage<T>) {
    this.coverage = coverage;
  }

  /** Whether the channel has to tell of what is stored from now on. */
  get isAnswerable(): boolean {
    return this.#answerableAt !== null;
  }

  /** When `tick` finds a broadcast missing. */
  get deadline(): number {
    return this.#unpushed?.until ?? Infinity;
  }

  /** Tell whether a broadcast that had to come has not, by now. */
  tick(now: number): boolean {
    if (now < this.deadline) return false;
    this.#unpushed = null;
    this.missing = true;
    return true;
  }

  /** What was stored until here need not be told of, and has to be fetched. */
  joined(): void {
    this.notAnswerable();
    this.coverage.doubt();
  }

  /** From here on the channel need not have told of what is stored. */
  notAnswerable(): void {
    this.#answerableAt = null;
    this.#unpushed = null;
  }

  /** The channel has to tell of what is stored after `lastSeq`. */
  becomeAnswerable(lastSeq: number, now: number): void {
    this.#pushed = Math.max(this.#pushed, lastSeq);
    this.#answerableAt = now;
  }

  /** Take in what the channel brought. */
  broadcast(message: Announcement<T>, joined: boolean): void {
    this.coverage.broadcast(message);
    if (joined) this.#pushed = Math.max(this.#pushed, message.lastSeq);
    if (this.#unpushed !== null && this.#unpushed.seq <= this.#pushed) {
      this.#unpushed = null;
      this.missing = false;
    }
  }

  /** The database has shown that `seq` is stored: it was pushed, or will be in a moment. */
  shown(seq: number, now: number, latenessMs: number): void {
    if (this.#answerableAt === null) return;
    if (seq > this.#pushed) {
      this.#unpushed ??= { seq, until: now + latenessMs };
    } else if (now >= this.#answerableAt + latenessMs) {
      this.missing = false;
    }
  }

  /** Whether the channel has told of this seq, or need not. */
  hasPushed(seq: number): boolean {
    return seq <= this.#pushed;
  }

  /** Note since when it lacks something. */
  judge(now: number): void {
    if (!this.coverage.isBehind) {
      this.behind = null;
    } else if (this.behind === null || this.coverage.has(this.behind.seq)) {
      // Under a steady flow something is always missing: what counts is for how long.
      this.behind = { seq: this.coverage.furthest, since: now };
    }
  }
}
