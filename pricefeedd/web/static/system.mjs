/** What else the daemon tells an operator: leader, clients, sinks, store, accounts, source, plugins. */
import { byId, h, keyed, mark, put, setState, show, stateOf } from "./dom.mjs";
import { age, bytes, count, duration, plural, short, toMs } from "./format.mjs";

/** Rows of `[name, value]`; those whose value is null are left out. */
function facts(list, rows) {
  keyed(
    list,
    rows.filter(([, value]) => value !== null && value !== undefined && value !== ""),
    ([name]) => name,
    ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
    (row, [, value]) => put(row.lastChild, value),
  );
}

class Card {
  constructor(title) {
    this.state = stateOf("idle");
    this.title = h("span", {}, title);
    this.facts = h("dl", { class: "facts" });
    this.none = h("p", { class: "none" });
    this.fine = h("p", { class: "fine trouble" });
    this.element = h("div", { class: "card" }, h("h3", {}, this.title, this.state), this.facts, this.none, this.fine);
  }

  /** @param state `[shape, word]`, or null */
  draw({ title, state = null, rows = [], none = "", fine = "" }) {
    if (title !== undefined) put(this.title, title);
    show(this.state, state !== null);
    if (state !== null) setState(this.state, ...state);
    facts(this.facts, rows);
    show(this.facts, rows.length > 0);
    put(this.none, none);
    show(this.none, none !== "");
    put(this.fine, fine);
    show(this.fine, fine !== "");
  }
}

const sum = (counts) => Object.values(counts ?? {}).reduce((total, number) => total + number, 0);
const SHAPES = { up: "ok", connecting: "connecting", blocked: "warn", down: "bad", live: "ok", stale: "warn", resyncing: "warn" };
const shaped = (word) => [SHAPES[word] ?? "idle", word];

function leader(told) {
  if (told === null || told === undefined || typeof told !== "object") {
    const leads = told !== false;
    return { state: [leads ? "ok" : "idle", leads ? "leads" : "standby"], none: leads ? "Alone: no elector is configured. With [leader] a second daemon stands by." : "Another instance leads." };
  }
  const alone = told.elector === "none" || !told.elector;
  return {
    state: told.leads ? ["ok", "leads"] : ["idle", "standby"],
    rows: alone
      ? []
      : [
          ["Elector", told.elector],
          ["This one", told.identity],
          ["Leader", told.leader ?? "nobody"],
          ["Fence", told.fence === null || told.fence === undefined ? null : String(told.fence)],
          ["Since", toMs(told.since) === null ? null : duration((Date.now() - toMs(told.since)) / 1000)],
          ["Changes", count(told.changes ?? 0)],
        ],
    none: alone ? "Alone: no elector is configured. With [leader] a second daemon stands by." : "",
    fine: told.reason ?? "",
  };
}

function clients(told, frameRate) {
  const closed = Object.entries(told.closed ?? {}).map(([code, number]) => `${code}: ${count(number)}`);
  return {
    rows: [
      ["Connected", count(told.connected)],
      ["Accepted", count(told.accepted)],
      ["Frames sent", short(told.frames)],
      ["Frames per second", frameRate === null ? "–" : short(frameRate)],
      ["Conflated", count(told.conflated)],
      ["Lost", count(told.lost)],
      ["Closed by us", closed.join(", ") || "none"],
    ],
    fine: told.lost > 0 ? "Some clients read too slowly: events past their queue were dropped, and they were told." : "",
  };
}

function sink(told) {
  const { spool } = told;
  return {
    state: shaped(told.state),
    rows: [
      ["Delivered", count(told.delivered)],
      ["Dropped", count(sum(told.dropped))],
      ["Waiting", count(told.waiting)],
      ["Reconnects", told.reconnects > 0 ? count(told.reconnects) : null],
      ["Spool", spool ? `${plural(spool.records, "record")}, ${bytes(spool.bytes)} of ${bytes(spool.limit_bytes)}` : null],
      ["Oldest in spool", spool?.oldest_age_s ? age(spool.oldest_age_s) : null],
    ],
    fine: [told.reason, ...(told.concerns ?? []), spool?.trouble].filter(Boolean).join("; "),
  };
}

/** The store's own names, in words: it tells more with time, and all numbers of it are shown. */
function store(told) {
  const rows = [];
  for (const [name, value] of Object.entries(told)) {
    if (["state", "reason", "url", "troubles", "last_error"].includes(name)) continue;
    if (typeof value === "object" && value !== null) continue;
    const title = name.replaceAll("_", " ").replace(/ (s|bytes)$/, "");
    const shown =
      typeof value !== "number" ? value : value > 1e14 ? `${age(Math.max(0, (Date.now() - value / 1000) / 1000))} ago` : name.endsWith("_bytes") ? bytes(value) : name.endsWith("_s") ? age(value) : count(value);
    if (value !== null && value !== "") rows.push([title.charAt(0).toUpperCase() + title.slice(1), String(shown)]);
  }
  return { state: told.state ? shaped(told.state) : null, rows: rows.slice(0, 10), fine: told.reason || told.last_error || "" };
}

function account(told) {
  const channels = Object.entries(told.channels ?? {});
  const worst = ["down", "stale", "resyncing", "connecting"].find((word) => channels.some(([, { state }]) => state === word));
  return {
    state: shaped(worst ?? (channels.length ? "live" : "connecting")),
    rows: [
      ["Environment", told.environment],
      ...channels.map(([name, { state, events }]) => [name.charAt(0).toUpperCase() + name.slice(1), `${state}, ${plural(events, "event")}`]),
      ["Last event", toMs(told.last_event) === null ? "none yet" : `${duration((Date.now() - toMs(told.last_event)) / 1000)} ago`],
      ["Reconnects", told.reconnects > 0 ? count(told.reconnects) : null],
    ],
    fine: told.last_error ?? "",
  };
}

function source(told) {
  return {
    state: shaped(told.state),
    rows: [
      ["Epoch", told.epoch],
      ["Last message", told.last_message_age_s === null ? "never" : `${age(told.last_message_age_s)} ago`],
      ...Object.entries(told)
        .filter(([name, value]) => typeof value === "number" && name !== "last_message_age_s")
        .map(([name, value]) => [name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " "), count(value)]),
    ],
    fine: told.reason ?? "",
  };
}

function plugins(told) {
  const broken = told.filter(({ status }) => status === "broken");
  const loaded = told.filter(({ status }) => status === "loaded");
  return {
    state: broken.length ? ["warn", `${broken.length} broken`] : ["ok", `${loaded.length} loaded`],
    none: loaded.map(({ name }) => name).join(", "),
    fine: broken.map(({ name, reason }) => `${name}: ${reason}`).join("; "),
  };
}

export class System {
  constructor(model, { useKey }) {
    this.model = model;
    this.body = byId("system-body");
    this.locked = h(
      "div",
      { class: "card" },
      h("p", { class: "none" }, "Leader, clients, sinks, store and accounts need a key with the scope admin."),
      h("p", { class: "fine" }),
      h("button", { type: "button", class: "button", onclick: useKey }, "Use another key"),
    );
    this.cards = h("div", {});
    this.body.append(this.locked, this.cards);
    this.cards.classList.add("cards");
  }

  draw() {
    const { status, closed } = this.model;
    show(this.locked, closed);
    show(this.cards, status !== null);
    if (status === null) return;
    mark(this.body, "aria-busy", null);
    const sinks = Object.entries(status.sinks ?? {});
    const accounts = Object.entries(status.accounts ?? {}).flatMap(([venue, named]) =>
      Object.entries(named).map(([name, told]) => [`${venue} ${name}`, told]),
    );
    const cards = [
      { key: "leader", title: "Leader", ...leader(status.leader) },
      { key: "clients", title: "Clients", ...clients(status.clients, this.model.frameRate) },
      ...(status.source ? [{ key: "source", title: `Source ${status.source.name}`, ...source(status.source) }] : []),
      status.store
        ? { key: "store", title: "Store", ...store(status.store) }
        : { key: "store", title: "Store", none: "None. With [store] candles, gaps and subscriptions outlive the process." },
      ...(sinks.length
        ? sinks.map(([name, told]) => ({ key: `sink ${name}`, title: `Sink ${name}`, ...sink(told) }))
        : [{ key: "sinks", title: "Sinks", none: "None. [sinks.zmq] or [sinks.rabbitmq] sends on what comes in." }]),
      ...accounts.map(([name, told]) => ({ key: `account ${name}`, title: `Account ${name}`, ...account(told) })),
      ...(status.plugins?.length ? [{ key: "plugins", title: "Plugins", ...plugins(status.plugins) }] : []),
    ];
    keyed(
      this.cards,
      cards,
      ({ key }) => key,
      ({ title }) => {
        const card = new Card(title);
        card.element.card = card;
        return card.element;
      },
      (element, told) => element.card.draw(told),
    );
  }
}
