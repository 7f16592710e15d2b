/** Resolve after so many milliseconds, or as soon as `signal` aborts. */
export function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, signal?.aborted ? 0 : ms);
    signal?.addEventListener("abort", done);
  });
}

/** Wait for `value`, but no longer than until `signal` aborts, which throws its reason. */
export function unlessAborted<T>(value: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    value.then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
    // Only now: whatever comes of `value` has to be handled, also when nobody waits for it.
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  });
}

/** Wakes everyone who waits for some condition whenever it may have become true. */
export class Pulse {
  #waiting: (() => void)[] = [];

  beat(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }
}

/** Milliseconds to wait after `attempt` (1, 2, …) failed: full jitter, doubling, bounded. */
export function pauseBefore(attempt: number, firstMs: number, longestMs: number): number {
  return Math.random() * Math.min(longestMs, firstMs * 2 ** Math.min(attempt - 1, 20));
}
