/** What the address says: `#/` is the overview, `#/topic/trade:binance:BTC-USDT` one topic. Pure. */

export function read(hash) {
  const found = /^#\/topic\/(.+)$/.exec(hash);
  if (found === null) return { view: "overview", topic: null };
  try {
    return { view: "topic", topic: decodeURIComponent(found[1]) };
  } catch {
    return { view: "overview", topic: null }; // a `%` that escapes nothing
  }
}

/** Colons and what is usual in a topic stay legible. */
export const write = (topic) => `#/topic/${encodeURIComponent(topic).replaceAll("%3A", ":")}`;
