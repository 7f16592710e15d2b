/**
 * One of the two rows that an account grows, its signals or their events. No I/O, no clock.
 *
 * What a subscription has of it, and whether the channel tells of what is stored of it: each time
 * the database shows a seq that no broadcast has told of, one has to follow within a moment.
 * Otherwise broadcasts are missing, and stay so until the channel proves itself: by a broadcast
 * that is there in time for what the database has shown, or, after another join, by an answer that
 * shows nothing that was not pushed.
 *
 * A page alone does not tell how long broadcasts are put together just now: what it shows that was
 * not pushed is only asked about, when its time is over.
 */

import type { Announcement, Coverage, Numbered } from "./coverage.ts";

/** If a tick is later than that, this process stood still, and what has come is not read yet. */
const STANDSTILL_MS = 250;

/** The signals of an account, or their events. */
export class Strand<T extends Numbered> {
  readonly coverage: Coverage<T>;
  /** Whether the channel does not tell of what is stored. */
  missing = false;
  /** Up to which seq something has to come, and since when that is known. */
  behind: { readonly seq: number; readonly since: number } | null = null;
  #provenAt = 0;
  #pushed = 0;
  #answerableAt: number | null = null;
  #unpushed: { readonly seq: number; readonly until: number } | null = null;
  #waitedAgain = false;
  #doubtful: { readonly seq: number; readonly askAt: number } | null = null;

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

  /** When to ask about what a page showed and no broadcast has told of. */
  get askAt(): number {
    return this.#doubtful?.askAt ?? Infinity;
  }

  /** What was stored until then is known to be stored. */
  get provenAt(): number {
    return this.#provenAt;
  }

  /** Tell whether a broadcast that had to come has not, by now. */
  tick(now: number): boolean {
    if (this.#unpushed === null || now < this.#unpushed.until) return false;
    if (now > this.#unpushed.until + STANDSTILL_MS && !this.#waitedAgain) {
      this.#waitedAgain = true;
      this.#unpushed = { seq: this.#unpushed.seq, until: now + STANDSTILL_MS };
      return false;
    }
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
    this.#unpushed = this.#doubtful = null;
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
    if (this.#doubtful !== null && this.#doubtful.seq <= this.#pushed) this.#doubtful = null;
  }

  /** All that was stored at this moment is known to be stored. */
  proven(at: number): void {
    this.#provenAt = Math.max(this.#provenAt, at);
  }

  /** Tell whether the database, in showing `seq`, has shown more than the channel told of. */
  showsUnpushed(seq: number, askedAt: number, latenessMs: number): boolean {
    if (this.#answerableAt === null || askedAt < this.#answerableAt) return false;
    if (seq <= this.#pushed && askedAt >= this.#answerableAt + latenessMs) this.missing = false;
    return seq > this.#pushed;
  }

  /** The channel has to tell of `seq` by then. */
  expect(seq: number, until: number): void {
    if (this.#unpushed !== null) return;
    this.#unpushed = { seq, until };
    this.#waitedAgain = false;
  }

  /** Unless the channel tells of `seq` by then, a check has to say how long it may take. */
  askAbout(seq: number, askAt: number): void {
    this.#doubtful ??= { seq, askAt };
  }

  /** A check was asked at this time: what was to be asked about has to come by `until`. */
  checked(askedAt: number, until: number): void {
    if (this.#doubtful === null || askedAt < this.#doubtful.askAt) return;
    this.expect(this.#doubtful.seq, until);
    this.#doubtful = null;
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
