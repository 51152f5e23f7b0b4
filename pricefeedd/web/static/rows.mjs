/** The list of topics: which, in which order, and which of them are in sight. Pure. */
import { STATES } from "./states.mjs";

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** Return whether a topic has all words of a search, each anywhere in its name. */
export function matches(topic, words) {
  const name = topic.name.toLowerCase();
  return words.every((word) => name.includes(word));
}

export const wordsOf = (search) => search.toLowerCase().split(/\s+/).filter(Boolean);

const ORDERS = {
  state: (a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state),
  instrument: (a, b) => collator.compare(a.instrument, b.instrument),
  venue: (a, b) => collator.compare(a.venue, b.venue),
  channel: (a, b) => collator.compare(a.channel, b.channel),
  age: (a, b) => (b.atMs ?? -Infinity) - (a.atMs ?? -Infinity),
  messages: (a, b) => a.messages - b.messages,
  readers: (a, b) => a.readers - b.readers,
};

/** By what the list can be ordered. */
export const SORTS = Object.keys(ORDERS);

/**
 * Return the topics that are wanted, in order.
 * @param filter `{search, channel, venue, state}`, each empty for any
 * @param sort `{by, down}`
 */
export function arrange(topics, filter, sort) {
  const words = wordsOf(filter.search ?? "");
  const found = [];
  for (const topic of topics) {
    if (filter.channel && topic.channel !== filter.channel) continue;
    if (filter.venue && topic.venue !== filter.venue) continue;
    if (filter.state && topic.state !== filter.state) continue;
    if (!matches(topic, words)) continue;
    found.push(topic);
  }
  const order = ORDERS[sort.by] ?? ORDERS.instrument;
  const sign = sort.down ? -1 : 1;
  return found.sort(
    (a, b) =>
      sign * order(a, b) ||
      ORDERS.instrument(a, b) ||
      ORDERS.venue(a, b) ||
      ORDERS.channel(a, b) ||
      (a.name < b.name ? -1 : 1),
  );
}

/** Return the rows to draw, first to before last, for a scroller that shows some of many. */
export function inSight({ top, height, rowHeight, total, spare = 6 }) {
  const first = Math.max(0, Math.min(total, Math.floor(top / rowHeight) - spare));
  const last = Math.min(total, Math.ceil((top + height) / rowHeight) + spare);
  return { first, last: Math.max(first, last) };
}

/** Return where to scroll so that a row is in sight, and nowhere if it is. */
export function reveal({ row, top, height, rowHeight }) {
  if (row * rowHeight < top) return row * rowHeight;
  if ((row + 1) * rowHeight > top + height) return (row + 1) * rowHeight - height;
  return top;
}

/** Return the row that a key leads to from another one; null for keys that lead nowhere. */
export function step(key, { row, total, page }) {
  if (total === 0) return null;
  const last = total - 1;
  const at = row ?? -1;
  switch (key) {
    case "ArrowDown":
    case "j":
      return Math.min(last, at + 1);
    case "ArrowUp":
    case "k":
      return Math.max(0, at === -1 ? 0 : at - 1);
    case "PageDown":
      return Math.min(last, Math.max(0, at) + page);
    case "PageUp":
      return Math.max(0, at - page);
    case "Home":
      return 0;
    case "End":
      return last;
    default:
      return null;
  }
}
