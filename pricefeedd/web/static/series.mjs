/** Numbers over time, in bounded memory. Pure. */

/** The last so many numbers; null where there was none. */
export class Ring {
  #values = [];

  constructor(length) {
    this.length = length;
  }

  push(value) {
    this.#values.push(value);
    if (this.#values.length > this.length) this.#values.shift();
  }

  get values() {
    return this.#values;
  }

  get last() {
    return this.#values.at(-1) ?? null;
  }

  clear() {
    this.#values.length = 0;
  }
}

/** Turns a count that grows into a rate. */
export class Meter {
  #count = null;
  #atMs = null;

  /** Take the count now; return the rate per second since the last time, null if there is none. */
  take(count, nowMs) {
    const [before, thenMs] = [this.#count, this.#atMs];
    if (thenMs !== null && nowMs <= thenMs) return null;
    this.#count = count;
    this.#atMs = nowMs;
    if (before === null || count < before) return null; // the first, or the daemon began anew
    return ((count - before) * 1000) / (nowMs - thenMs);
  }
}

/**
 * Return the paths of a sparkline in a box: a line, and the area below it. It ends at the right edge, so that those
 * which began at different times stand above each other; a number that is missing breaks it.
 */
export function spark(values, { length, width, height, floor = 0 }) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (known.length < 2) return { line: "", area: "" };
  const most = Math.max(...known, floor);
  const least = Math.min(0, ...known);
  const span = most - least || 1;
  const step = width / (length - 1);
  const first = length - values.length;
  const round = (number) => Math.round(number * 10) / 10;
  let line = "";
  let area = "";
  let began = null;
  let last = null;
  const close = () => {
    if (began !== null && last !== null) area += `L${last} ${height}L${began} ${height}Z`;
    began = null;
  };
  values.forEach((value, i) => {
    if (value === null || !Number.isFinite(value)) {
      close();
      return;
    }
    const x = round((first + i) * step);
    const y = round(height - 1 - ((value - least) / span) * (height - 2));
    const word = began === null ? "M" : "L";
    line += `${word}${x} ${y}`;
    area += `${word}${x} ${y}`;
    began ??= x;
    last = x;
  });
  close();
  return { line, area };
}
