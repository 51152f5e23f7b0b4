/** What happened: the daemon's log, what this page saw itself, and the gaps that are known. */
import { byId, h, keyed, put, show, stateOf } from "./dom.mjs";
import { clock, count, duration, moment, plural, toMs } from "./format.mjs";
import { severity } from "./states.mjs";

/** Entries that are kept. */
const MOST = 200;
const SHAPES = { info: "idle", warning: "warn", error: "bad" };
const OWN = new Set(["number", "time", "level", "message", "event", "timestamp", "logger"]);

function said(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

export class Journal {
  #entries = [];
  #id = 0;
  next = 0;
  #changed = true;
  #hasLog = null;

  constructor() {
    this.list = h("ol", {});
    this.empty = h("p", { class: "empty" }, "Nothing has happened since this page was opened. Sessions that are lost, topics that go stale and what else the daemon logs appear here.");
    this.empty.classList.add("body");
    byId("events-body").append(this.list, this.empty);
  }

  /** Note what this page saw itself. */
  note(level, text, about = "") {
    this.#add({ atMs: Date.now(), level, text, about });
  }

  /** Take `/api/v1/log`. */
  takeLog(body) {
    this.#hasLog = true;
    for (const line of body.lines ?? []) {
      const about = Object.entries(line)
        .filter(([name, value]) => !OWN.has(name) && value !== null && value !== "")
        .map(([name, value]) => `${name} ${said(value)}`)
        .join(" · ");
      this.#add({ atMs: toMs(line.time ?? line.timestamp), level: line.level, text: line.message ?? line.event ?? "", about });
    }
    if (body.next !== undefined && body.next !== null) this.next = body.next;
  }

  noLog(status) {
    this.#hasLog = status === 401 || status === 403 ? "closed" : false;
    this.#changed = true;
  }

  /** The daemon began anew, and with it the numbers of its lines. */
  begin() {
    this.next = 0;
  }

  #add(entry) {
    this.#id += 1;
    this.#entries.push({ ...entry, id: this.#id });
    this.#entries.sort((a, b) => (b.atMs ?? 0) - (a.atMs ?? 0) || b.id - a.id);
    this.#entries.length = Math.min(this.#entries.length, MOST);
    this.#changed = true;
  }

  draw() {
    if (!this.#changed) return;
    this.#changed = false;
    show(this.empty, this.#entries.length === 0);
    put(byId("events-note"), this.#hasLog === "closed" ? "the daemon's log needs an admin key" : "");
    keyed(
      this.list,
      this.#entries,
      ({ id }) => id,
      ({ atMs, level, text, about }) => {
        const kind = severity(level);
        const state = stateOf(SHAPES[kind]);
        put(state.lastChild, kind);
        return h(
          "li",
          { class: "entry" },
          h("time", { title: moment(atMs) }, clock(atMs)),
          state,
          h("div", { class: "what" }, h("p", {}, text), about ? h("p", { class: "facts-line" }, about) : null),
        );
      },
      () => {},
    );
  }
}

export class Gaps {
  constructor() {
    this.list = h("ol", {});
    this.empty = h("p", { class: "empty body" });
    byId("gaps-body").append(this.list, this.empty);
    put(this.empty, "Waiting for the daemon.");
  }

  /** Say why there is no list. */
  refused(status) {
    put(
      this.empty,
      status === 401
        ? "Gaps need a key."
        : status === 404
          ? "Gaps are served on the admin listener only."
          : "Gaps cannot be read now.",
    );
  }

  take({ total, gaps, stored }) {
    put(this.empty, "No gaps are known: all that the venues sent was received, or filled in again.");
    show(this.empty, gaps.length === 0);
    put(byId("gaps-note"), gaps.length === 0 ? "" : `${count(total)}${stored ? "" : " since the start"}`);
    keyed(
      this.list,
      gaps,
      (gap) => `${gap.channel} ${gap.venue} ${gap.instrument} ${gap.from} ${gap.to} ${gap.recorded_at}`,
      (gap) => {
        const [from, to] = [toMs(gap.from), toMs(gap.to)];
        const lost = gap.missing;
        const word = lost === 0 ? "filled" : lost === null ? "unknown" : `${count(lost)} lost`;
        const state = stateOf(lost === 0 ? "ok" : "warn");
        put(state.lastChild, word);
        return h(
          "li",
          { class: "gap" },
          h("time", { title: moment(to) }, clock(to)),
          h(
            "div",
            {},
            h("p", {}, `${gap.instrument} ${gap.channel}, ${gap.venue}`),
            h("p", { class: "quiet" }, `${gap.reason}; ${duration((to - from) / 1000)}${gap.recovered ? `; ${plural(gap.recovered, "event")} filled in` : ""}`),
          ),
          state,
        );
      },
      () => {},
    );
  }
}
