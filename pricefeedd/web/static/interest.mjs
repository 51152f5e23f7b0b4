/** What to subscribe: as little as is in sight. Pure. */

const PRIVATE = new Set(["order", "execution", "position", "balance"]);

/** Rows of the list change no more often than this. */
const LIST_MS = 500;

/**
 * Return what the rows in sight need, topics or patterns with their options.
 *
 * By pattern, as a reader of a name would keep what its venue brings only on demand: to look at the list must change
 * nothing. Topics of an account match no pattern.
 */
export function forRows(topics) {
  const wanted = new Map();
  for (const { channel, venue, instrument, name } of topics) {
    const options = channel === "book" ? { every_ms: LIST_MS * 2, depth: 1 } : { every_ms: LIST_MS };
    const simple = !instrument.includes("*") && !venue.includes("*");
    if (simple) wanted.set(PRIVATE.has(channel) ? name : `${channel}:*:${instrument}`, options);
  }
  return wanted;
}

/** Return what the view of an instrument needs, of the topics that there are of it. */
export function forInstrument(topics, { candles, depth }) {
  const wanted = new Map();
  for (const { channel, name } of topics) {
    if (channel === "book") wanted.set(name, { every_ms: 250, depth });
    else if (channel.startsWith("candle_")) {
      if (channel === candles) wanted.set(name, { every_ms: 500 });
    } else if (channel === "ticker") wanted.set(name, { every_ms: 1000 });
    else if (channel === "quote" || channel === "price") wanted.set(name, { every_ms: 250 });
    else wanted.set(name, {}); // each trade is on the tape
  }
  return wanted;
}

const same = (a, b) => a.every_ms === b.every_ms && a.depth === b.depth;

/** Return what to let go of, and what to ask for, to come from one interest to another. */
export function changes(had, wanted) {
  const gone = [];
  const come = new Map();
  for (const [topic, options] of had) {
    const next = wanted.get(topic);
    if (next === undefined || !same(options, next)) gone.push(topic);
  }
  for (const [topic, options] of wanted) {
    const before = had.get(topic);
    if (before === undefined || !same(before, options)) come.set(topic, options);
  }
  return { gone, come };
}
