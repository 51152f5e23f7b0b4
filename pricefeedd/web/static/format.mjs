/** Numbers and times for people. Pure. */

const NONE = "–";
const GROUPS = /\B(?=(\d{3})+(?!\d))/g;

/** Exact decimal text, with its whole part in groups: a venue's digits are all kept. */
export function decimal(text) {
  if (text === null || text === undefined || text === "") return NONE;
  const [whole, rest] = String(text).split(".");
  const grouped = whole.replace(GROUPS, "\u202f");
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

/** A count in full. */
export const count = (value) => (value === null || value === undefined ? NONE : decimal(Math.round(value)));

/** A count in at most four digits. */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (Math.abs(value) >= unit) {
      const scaled = value / (name === "k" ? 1e3 : unit);
      return `${scaled.toFixed(scaled >= 100 ? 0 : 1)}${name}`;
    }
  }
  return Number.isInteger(value) ? String(value) : value.toFixed(Math.abs(value) < 10 ? 2 : 0);
}

/** A number per second. */
export function rate(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value >= 1e4) return short(value);
  return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let left = value;
  while (left >= 1000 && at < units.length - 1) {
    left /= 1000;
    at += 1;
  }
  return `${at === 0 || left >= 100 ? left.toFixed(0) : left.toFixed(1)} ${units[at]}`;
}

/** A latency given in ms. */
export function latency(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NONE;
  if (Math.abs(ms) < 1) return `${(ms * 1000).toFixed(0)} µs`;
  if (Math.abs(ms) >= 10_000) return duration(ms / 1000);
  return `${ms.toFixed(Math.abs(ms) < 10 ? 2 : Math.abs(ms) < 100 ? 1 : 0)} ms`;
}

/** A short time as it grows: tenths of seconds at first. */
export function age(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  return duration(seconds);
}

/** A time span in its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

const two = (value) => String(value).padStart(2, "0");

/** Time of the day where the reader is, from ms since the epoch. */
export function clock(ms, { tenths = false } = {}) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NONE;
  const at = new Date(ms);
  const seconds = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return tenths ? `${seconds}.${String(at.getMilliseconds()).padStart(3, "0").slice(0, 1)}` : seconds;
}

/** Date and time where the reader is, from ms since the epoch. */
export function moment(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return NONE;
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

/** What a wait is, spoken: whole seconds, rounded up, so that it ends at 1 and not at 0. */
export const wait = (ms) => `${Math.max(1, Math.ceil(ms / 1000))} s`;

export const percent = (share) => (Number.isFinite(share) ? `${share > 0 ? "+" : ""}${(share * 100).toFixed(2)} %` : NONE);

/** The digits behind the point that multiples of a step need: 0.25 has 2, 2.5 has 1, 50 has none. */
export function digitsOf(step) {
  for (let digits = 0; digits < 10; digits += 1) {
    const scaled = step * 10 ** digits;
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * Math.max(1, scaled) && Math.round(scaled) > 0) return digits;
  }
  return 10;
}

/** Hundredths of a percent, with two digits that tell something. */
export const basis = (points) => `${points === 0 || points >= 1 ? points.toFixed(2) : points.toPrecision(2).replace(/0+$/, "")} bp`;

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/** Times come as ISO 8601, as µs or as ns since the epoch; return ms, or null. */
export function toMs(time) {
  if (time === null || time === undefined || time === "") return null;
  if (typeof time === "string" && !/^\d+$/.test(time)) {
    const parsed = Date.parse(time);
    return Number.isNaN(parsed) ? null : parsed;
  }
  const value = Number(time);
  if (value > 1e17) return Math.round(value / 1e6);
  if (value > 1e14) return Math.round(value / 1e3);
  return value > 1e11 ? value : value * 1e3;
}
