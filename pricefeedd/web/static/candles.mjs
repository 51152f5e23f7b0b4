/** Candles of one topic: the past and what comes, in order, and as columns for a chart. Pure. */

/** So many are kept. */
const MOST = 1000;

export class Candles {
  #byStart = new Map();
  #starts = [];

  constructor(most = MOST) {
    this.most = most;
  }

  get size() {
    return this.#starts.length;
  }

  get last() {
    return this.#byStart.get(this.#starts.at(-1)) ?? null;
  }

  clear() {
    this.#byStart.clear();
    this.#starts.length = 0;
  }

  /**
   * Take a candle as `data` of a message, or as a row of `/api/v1/candles`. A closed one is never replaced by an open
   * one, which can only be older. Return whether anything changed.
   */
  take(data) {
    const start = data.start;
    if (!Number.isFinite(start)) return false;
    const before = this.#byStart.get(start);
    if (before !== undefined && before.closed && !data.closed) return false;
    this.#byStart.set(start, data);
    if (before === undefined) {
      let at = this.#starts.length;
      while (at > 0 && this.#starts[at - 1] > start) at -= 1;
      this.#starts.splice(at, 0, start);
      if (this.#starts.length > this.most) this.#byStart.delete(this.#starts.shift());
    }
    return true;
  }

  /** Return columns: start in s, open, high, low, close, volume. Only the chart's pixels are made of these floats. */
  columns() {
    const columns = [[], [], [], [], [], []];
    for (const start of this.#starts) {
      const { open, high, low, close, volume } = this.#byStart.get(start);
      [start / 1e6, Number(open), Number(high), Number(low), Number(close), Number(volume ?? 0)].forEach((value, i) =>
        columns[i].push(Number.isFinite(value) ? value : null),
      );
    }
    return columns;
  }

  at(index) {
    return this.#byStart.get(this.#starts[index]) ?? null;
  }
}

/** Return the digits behind the point that a price has. */
export function digits(price) {
  const at = String(price ?? "").indexOf(".");
  return at === -1 ? 0 : String(price).length - at - 1;
}
