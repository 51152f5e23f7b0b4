/** What may be believed: ages and states of topics and markets. Pure. */

/** Worst first: so the states sort. */
export const STATES = ["down", "resyncing", "stale", "connecting", "live"];

const INTERVALS_S = { "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": 86_400 };

/** Seconds after which the newest message of a channel is late, and then too late; null where silence is no sign. */
export function patience(channel) {
  if (channel.startsWith("candle_")) {
    const interval = INTERVALS_S[channel.slice(7)] ?? 60;
    // Those that venues send come with each trade; longer ones are made here when a minute is over.
    return interval === 60 ? [30, 90] : [interval * 1.1, interval * 2];
  }
  if (["trade", "quote", "ticker", "book", "price"].includes(channel)) return [10, 30];
  return null;
}

/** How an age looks: `fresh`, `aging` or `late`. The daemon's own word comes first. */
export function freshness(channel, ageS, state) {
  if (state === "down" || state === "stale") return "late";
  if (ageS === null || ageS === undefined) return state === "live" ? "fresh" : "aging";
  const limits = patience(channel);
  if (limits === null || ageS < limits[0]) return "fresh";
  return ageS < limits[1] ? "aging" : "late";
}

/** The one word for a market of a venue. */
export function marketState(facts) {
  if (facts.circuit_state === "open") return "down";
  if (!facts.healthy) return facts.active_connections > 0 ? "stale" : "down";
  if (facts.circuit_state === "half-open") return "resyncing";
  return facts.active_connections > 0 ? "live" : "idle";
}

/** How severe a log level or a state is: `info`, `warning` or `error`. */
export function severity(word) {
  const low = String(word).toLowerCase();
  if (["error", "critical", "fatal", "down"].includes(low)) return "error";
  if (["warning", "warn", "stale", "resyncing"].includes(low)) return "warning";
  return "info";
}

/** The value of a message that tells most. */
export function headline(channel, data) {
  if (data === null || data === undefined) return null;
  if (channel.startsWith("candle_")) return { main: data.close };
  switch (channel) {
    case "trade":
    case "liquidation":
      return { main: data.price, side: data.side ?? null };
    case "price":
      return { main: data.price };
    case "quote":
      return { main: data.bid_price, other: data.ask_price };
    case "ticker":
      return { main: data.last ?? data.mark_price ?? null };
    case "book":
      return data.bid || data.ask ? { main: data.bid, other: data.ask } : null;
    default:
      return { word: data.status ?? data.state ?? data.key ?? "" };
  }
}

/** Whether a price went `up` or `down`; null if neither. */
export function direction(before, now) {
  const difference = Number(now) - Number(before);
  if (before === null || before === undefined || !Number.isFinite(difference) || difference === 0) return null;
  return difference > 0 ? "up" : "down";
}
