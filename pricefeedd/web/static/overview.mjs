/** In short, and the venues: what is drawn once a second from `/status`. */
import { byId, h, keyed, mark, put, setState, show, stateOf } from "./dom.mjs";
import { age, bytes, count, duration, latency, plural, rate, short, toMs } from "./format.mjs";
import { Sparkline } from "./sparkline.mjs";
import { marketState, STATES } from "./states.mjs";

function tile(title, { curve = false } = {}) {
  const parts = {
    big: h("p", { class: "big" }, "–"),
    sub: h("p", { class: "sub" }),
    curve: curve ? new Sparkline({ height: 48 }) : null,
  };
  parts.element = h("div", { class: "tile" }, h("h2", {}, title), parts.big, parts.sub, parts.curve?.element);
  return parts;
}

/** A number and its unit, which is smaller. */
function say(element, number, unit = "") {
  put(element, number);
  if (unit) element.append(h("small", {}, unit));
}

export class Tiles {
  constructor(model) {
    this.model = model;
    this.messages = tile("Messages in", { curve: true });
    this.topics = tile("Topics");
    this.meter = h("div", { class: "meter", "aria-hidden": "true" });
    this.topics.sub.before(this.meter);
    this.delay = tile("Latency", { curve: true });
    this.clients = tile("Clients");
    this.uptime = tile("Uptime");
    byId("tiles").append(...[this.messages, this.topics, this.delay, this.clients, this.uptime].map((made) => made.element));
  }

  draw() {
    const { model } = this;
    const status = model.status;
    say(this.messages.big, rate(model.rates.last), "/s");
    put(this.messages.sub, model.messages === undefined ? "" : `${short(model.messages)} since the start`);
    this.messages.curve.draw(model.rates.values);

    const states = model.states();
    const total = Object.values(states).reduce((sum, number) => sum + number, 0);
    say(this.topics.big, count(total));
    const present = STATES.filter((state) => states[state] > 0).reverse();
    put(this.topics.sub, present.map((state) => `${count(states[state])} ${state}`).join(" · ") || "none yet");
    keyed(this.meter, present, (state) => state, (state) => h("i", { class: `m-${state}` }), (bar, state) => {
      bar.style.flexGrow = states[state];
    });

    this.#drawDelay();
    if (status === null) {
      for (const { big, sub } of [this.clients, this.uptime]) {
        put(big, "–");
        put(sub, model.closed ? "needs an admin key" : "");
      }
      return;
    }
    const { clients } = status;
    say(this.clients.big, count(clients.connected));
    const lost = clients.lost > 0 ? ` · ${short(clients.lost)} lost` : "";
    put(this.clients.sub, `${rate(model.frameRate)} frames/s out${lost}`);
    say(this.uptime.big, duration(status.uptime_s));
    const memory = status.memory?.rss_bytes ?? status.memory?.peak_rss_bytes;
    put(this.uptime.sub, `${bytes(memory)} memory${status.memory?.rss_bytes === undefined ? ", peak" : ""}`);
  }

  /** The latency of the market where it is longest: from the venue if clocks tell it, else within the daemon. */
  #drawDelay() {
    let worst = null;
    let kind = null;
    for (const market of this.model.markets.values()) {
      const { latency: told } = market.facts;
      for (const [name, words] of [["venue_ms", "from the venue"], ["publish_ms", "within the daemon"]]) {
        if (!told?.[name]) continue;
        if (worst === null || told[name].p50 > worst.facts.latency[kind.name].p50) [worst, kind] = [market, { name, words }];
        break;
      }
    }
    if (worst === null) {
      put(this.delay.big, "–");
      put(this.delay.sub, this.model.closed ? "needs an admin key" : "no figures yet");
      this.delay.curve.draw([]);
      return;
    }
    const { p50, p99 } = worst.facts.latency[kind.name];
    const [number, unit] = latency(p50).split(" ");
    say(this.delay.big, number, unit);
    put(this.delay.sub, `p99 ${latency(p99)}, ${this.model.markets.size > 1 ? `${worst.venue} ${worst.name}` : kind.words}`);
    mark(this.delay.element, "title", `of all markets the slowest, ${kind.words}`);
    this.delay.curve.draw(worst.latencies.values);
  }
}

const HEADS = ["Venue", "Market", "State", "Messages", "Latency p50 / p99", "Last message", "Connections", "Errors", "Gaps", "Reconnects"];

export class Venues {
  constructor(model, daemon) {
    this.model = model;
    this.daemon = daemon;
    this.rows = h("tbody", { role: "rowgroup" });
    const heads = HEADS.map((text, i) => h("th", { scope: "col", role: "columnheader", class: i > 2 ? "num" : null }, text));
    // Said again, as the phone's style takes the roles of a table away from it.
    this.table = h(
      "table",
      { class: "markets", role: "table", "aria-labelledby": "venues-title" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)),
      this.rows,
    );
    this.empty = h("p", { class: "empty" });
    byId("venues-body").append(this.table, this.empty);
  }

  draw() {
    const { model } = this;
    const markets = [...model.markets.values()].sort((a, b) => (a.venue + a.name < b.venue + b.name ? -1 : 1));
    const venues = new Set(markets.map(({ venue }) => venue)).size;
    put(byId("venues-count"), markets.length ? `${plural(venues, "venue")}, ${plural(markets.length, "market")}` : "");
    show(this.table, markets.length > 0);
    show(this.empty, markets.length === 0);
    put(
      this.empty,
      model.status?.source
        ? `This daemon serves what ${model.status.source.name} brings from another one. It has no venues of its own.`
        : model.ready === null
          ? "Waiting for the daemon."
          : "No venue is being served. Name one in the configuration, as [[venues.binance.subscribe]] with market, instruments and channels, and reload.",
    );
    keyed(this.rows, markets, (market) => `${market.venue} ${market.name}`, (market) => this.#make(market), (row, market) => this.#draw(row.parts, market));
  }

  #make(market) {
    const cell = (classes, label, ...content) => h("td", { role: "cell", class: classes, "data-label": label }, ...content);
    const parts = {
      state: stateOf("idle"),
      rate: h("span", { class: "value" }),
      delay: h("span", { class: "value" }),
      curve: new Sparkline({ width: 160 }),
      lag: new Sparkline({ width: 120, kind: "lag" }),
    };
    const figure = (name, label) => (parts[name] = cell("num m-figure", label));
    const row = h(
      "tr",
      { role: "row" },
      cell("name", null, market.venue),
      cell("m-market", null, market.name),
      cell("m-state", null, parts.state),
      cell("num m-rate", null, h("span", { class: "pair" }, parts.curve.element, parts.rate)),
      cell("num m-lag", null, h("span", { class: "pair" }, parts.lag.element, parts.delay)),
      figure("age", "Last message"),
      figure("connections", "Connections"),
      figure("errors", "Errors"),
      figure("gaps", "Gaps"),
      figure("reconnects", "Reconnects"),
    );
    row.parts = parts;
    return row;
  }

  #draw(parts, market) {
    const { facts } = market;
    const state = marketState(facts);
    const open = facts.circuit_state === "closed" ? "" : `, breaker ${facts.circuit_state}`;
    setState(parts.state, state, state + open);
    const health = facts.latency?.health;
    const told = [Number.isFinite(health) ? `health ${health} of 100` : "", facts.last_error ? `last error: ${facts.last_error}` : ""];
    mark(parts.state, "title", told.filter(Boolean).join("; ") || null);
    put(parts.rate, `${rate(market.rates.last)} /s`);
    parts.curve.draw(market.rates.values);
    const delay = facts.latency?.venue_ms ?? facts.latency?.publish_ms;
    put(parts.delay, delay ? `${latency(delay.p50)} / ${latency(delay.p99)}` : "–");
    parts.lag.draw(delay ? market.latencies.values : []);
    const atMs = toMs(facts.last_message_time);
    put(parts.age, atMs === null ? "never" : age((this.daemon.now() - atMs) / 1000));
    put(parts.connections, count(facts.active_connections));
    for (const [name, value] of [["errors", facts.total_errors], ["gaps", facts.gaps], ["reconnects", facts.reconnects]]) {
      put(parts[name], count(value ?? null));
      parts[name].classList.toggle("trouble", value > 0);
      parts[name].classList.toggle("m-zero", !value);
    }
  }
}
