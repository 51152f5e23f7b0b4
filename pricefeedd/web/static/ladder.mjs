/** An order book as a ladder. Pure. */
import { digits } from "./candles.mjs";

/**
 * Return the rungs of both sides, best first, each with the size up to it and its share of the deepest.
 * @param book `{bids, asks}` of [price, size], best first
 */
export function ladder(book, depth) {
  const side = (levels) => {
    let total = 0;
    return levels.slice(0, depth).map(([price, size]) => {
      total += Number(size);
      return { price, size, total };
    });
  };
  const bids = side(book.bids);
  const asks = side(book.asks);
  const deepest = Math.max(bids.at(-1)?.total ?? 0, asks.at(-1)?.total ?? 0);
  for (const rung of [...bids, ...asks]) rung.share = deepest > 0 ? rung.total / deepest : 0;
  return { bids, asks, ...spread(bids[0]?.price, asks[0]?.price) };
}

/** Return the spread as text with the digits of the prices, and in basis points; nulls where a side is missing. */
export function spread(bid, ask) {
  const difference = Number(ask) - Number(bid);
  if (bid === undefined || ask === undefined || bid === null || ask === null || !Number.isFinite(difference)) {
    return { spread: null, points: null };
  }
  const middle = (Number(ask) + Number(bid)) / 2;
  return {
    spread: difference.toFixed(Math.max(digits(bid), digits(ask))),
    points: middle > 0 ? (difference / middle) * 10_000 : null,
  };
}

/** A sum of sizes, in the digits of these sizes but no more than are legible. */
export const total = (value, size) => value.toFixed(Math.min(digits(size), value >= 1000 ? 2 : 5));
