/** One topic in full: its instrument's book, trades and candles, what is known of it, and why it is as it is. */
import { Candles } from "./candles.mjs";
import { CandleChart } from "./chart.mjs";
import { byId, h, keyed, mark, put, setState, show, stateOf } from "./dom.mjs";
import { age, basis, clock, count, decimal, duration, latency, moment, percent, plural, toMs } from "./format.mjs";
import { forInstrument } from "./interest.mjs";
import { ladder, total } from "./ladder.mjs";
import { Topic } from "./model.mjs";
import { write } from "./route.mjs";
import { freshness } from "./states.mjs";
import { drawLast, flash } from "./topics.mjs";

/** Levels of each side of a book. */
export const DEPTH = 15;
/** Trades on the tape. */
const TRADES = 80;
const PAST = 400;

const stat = (title) => {
  const value = h("dd", {}, "–");
  return { element: h("div", { class: "stat" }, h("dt", {}, title), value), value };
};

export class Instrument {
  #topic = null;
  #related = [];
  #interval = null;
  #candles = new Candles();
  #trades = [];
  #dirty = new Set();
  #frame = null;
  #asked = 0;

  constructor(model, daemon, live, { onInterest }) {
    Object.assign(this, { model, daemon, live, onInterest });
    this.root = byId("instrument");
    this.#build();
  }

  get topic() {
    return this.#topic?.name ?? null;
  }

  /** What to subscribe for what is shown. */
  get interest() {
    return forInstrument(this.#related.length ? this.#related : [this.#topic], { candles: this.#interval, depth: DEPTH });
  }

  // --- its parts -----------------------------------------------------------------------------------------------

  #build() {
    this.name = h("h1", { tabindex: "-1" });
    this.place = h("p", { class: "quiet" });
    this.price = { arrow: h("span", { class: "arrow" }), main: h("span", {}), other: h("span", { class: "other" }) };
    this.priceBox = h("p", { class: "price" }, this.price.arrow, this.price.main);
    this.stats = Object.fromEntries(
      [["bid", "Bid"], ["ask", "Ask"], ["spread", "Spread"], ["change", "24 h"], ["high", "High"], ["low", "Low"], ["volume", "Volume"]].map(([key, title]) => [key, stat(title)]),
    );
    this.notice = h("p", { class: "notice", role: "status", hidden: true });
    this.tabs = h("nav", { class: "tabs", "aria-label": "Topics of this instrument" });
    const back = h("a", { class: "back", href: "#/" }, arrow(), "All topics");
    const subject = h(
      "section",
      { class: "panel", "aria-label": "Instrument" },
      h("div", { class: "subject" }, back, h("div", {}, this.name, this.place), this.priceBox, h("dl", { class: "stats" }, ...Object.values(this.stats).map(({ element }) => element))),
      this.notice,
      this.tabs,
    );

    this.ohlc = h("p", { class: "ohlc" });
    this.chart = new CandleChart((candle) => this.#drawOhlc(candle));
    this.chartNote = h("p", { class: "over" });
    this.intervals = h("div", { class: "tabs", role: "group", "aria-label": "Interval" });
    const chart = h(
      "section",
      { class: "panel", "aria-labelledby": "chart-title" },
      h("div", { class: "head" }, h("h2", { id: "chart-title" }, "Candles"), this.intervals),
      this.ohlc,
      h("div", { class: "chart-box" }, this.chart.element),
    );
    this.chart.element.after(this.chartNote);
    chart.lastChild.style.position = "relative";

    this.bookState = stateOf("connecting");
    this.bookNote = h("p", { class: "empty" });
    const rung = () => {
      const cells = { price: h("td", { class: "price" }), size: h("td", { class: "num" }), sum: h("td", { class: "num quiet" }) };
      return { ...cells, row: h("tr", {}, ...Object.values(cells)) };
    };
    this.asks = Array.from({ length: DEPTH }, rung);
    this.bids = Array.from({ length: DEPTH }, rung);
    this.spread = h("td", { colspan: "3" });
    this.ladder = h(
      "table",
      { "aria-labelledby": "book-title" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Price"), h("th", { scope: "col", class: "num" }, "Size"), h("th", { scope: "col", class: "num" }, "Sum"))),
      h("tbody", { class: "asks" }, ...this.asks.map(({ row }) => row).reverse()),
      h("tbody", {}, h("tr", { class: "middle" }, this.spread)),
      h("tbody", { class: "bids" }, ...this.bids.map(({ row }) => row)),
    );
    this.bookTitle = h("h2", { id: "book-title" }, "Order book");
    this.ladderBox = h("div", { class: "ladder" }, this.ladder);
    const book = h("section", { class: "panel", "aria-labelledby": "book-title" }, h("div", { class: "head" }, this.bookTitle, h("span", { class: "end" }, this.bookState)), this.ladderBox, this.bookNote);

    this.tape = h("tbody", {});
    this.tapeNote = h("p", { class: "empty" });
    this.tapeBox = h(
      "div",
      { class: "tape", tabindex: "0", role: "region", "aria-label": "Last trades, newest first" },
      h("table", { "aria-labelledby": "tape-title" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Time"), h("th", { scope: "col" }, "Side"), h("th", { scope: "col", class: "num" }, "Price"), h("th", { scope: "col", class: "num" }, "Size"))), this.tape),
    );
    const tape = h("section", { class: "panel", id: "tape-panel", "aria-labelledby": "tape-title" }, h("div", { class: "head" }, h("h2", { id: "tape-title" }, "Trades")), this.tapeBox, this.tapeNote);

    this.factsState = stateOf("connecting");
    this.facts = h("dl", { class: "facts body" });
    const facts = h("section", { class: "panel", "aria-labelledby": "facts-title" }, h("div", { class: "head" }, h("h2", { id: "facts-title" }, "This topic"), h("span", { class: "end" }, this.factsState)), this.facts);

    this.verdict = stateOf("idle");
    this.whyText = h("p", {});
    this.whyAdvice = h("p", { class: "quiet" });
    this.why = h("dl", { class: "facts" });
    this.whyPanel = h(
      "section",
      { class: "panel", "aria-labelledby": "why-title" },
      h("div", { class: "head" }, h("h2", { id: "why-title" }, "Why is it so?"), h("span", { class: "end" }, this.verdict)),
      h("div", { class: "body why" }, this.whyText, this.whyAdvice, this.why),
    );

    this.others = h("ul", { class: "others" });
    this.othersPanel = h("section", { class: "panel", "aria-labelledby": "others-title" }, h("div", { class: "head" }, h("h2", { id: "others-title" }, "At other venues")), this.others);

    this.raw = h("pre", { class: "raw", tabindex: "0", "aria-label": "The newest message, as it came" });
    const raw = h("section", { class: "panel", "aria-label": "Newest message" }, h("details", {}, h("summary", {}, "Newest message"), this.raw));

    this.desk = h("div", { class: "desk" }, h("div", {}, chart, h("div", { class: "two" }, tape, h("div", { class: "stack" }, facts, this.whyPanel))), h("div", {}, book, this.othersPanel));
    this.root.append(subject, this.desk, raw);
    this.parts = { chart, book, tape };
  }

  // --- opening -------------------------------------------------------------------------------------------------

  open(name) {
    const before = this.#topic;
    this.#topic = this.model.topics.get(name) ?? new Topic(name);
    this.#refresh();
    const { instrument, venue } = this.#topic;
    if (before === null || before.instrument !== instrument || before.venue !== venue) {
      this.#trades = [];
      this.tape.replaceChildren();
      this.shown = null;
      for (const { value } of Object.values(this.stats)) put(value, "–");
      this.#interval = null;
    }
    this.#chooseInterval();
    show(this.whyPanel, false);
    show(this.notice, false);
    this.explain();
    this.#mark("all");
    this.onInterest();
    this.name.focus({ preventScroll: true });
  }

  /** Say that the daemon does not have it. */
  refused({ message, did_you_mean: near }) {
    show(this.notice, true);
    put(this.notice, `The daemon refuses this topic: ${message}.${near?.length ? ` Did you mean ${near.join(", ")}?` : ""}`);
  }

  close() {
    this.#topic = null;
    this.#related = [];
    this.chart.show(null);
    this.#candles.clear();
    this.#trades = [];
  }

  /** Topics come and go. */
  #refresh() {
    const { venue, instrument, name } = this.#topic;
    this.#topic = this.model.topics.get(name) ?? this.#topic;
    this.#related = this.model.of(venue, instrument);
    this.generation = this.model.generation;
    keyed(
      this.tabs,
      this.#related,
      (topic) => topic.name,
      (topic) => h("a", { href: write(topic.name) }, stateOf(topic.state), topic.channel),
      (link, topic) => {
        setState(link.firstChild, topic.state);
        mark(link, "aria-current", topic.name === name ? "page" : null);
      },
    );
    const channels = this.#related.map(({ channel }) => channel).filter((channel) => channel.startsWith("candle_"));
    keyed(
      this.intervals,
      channels,
      (channel) => channel,
      (channel) => h("button", { type: "button", onclick: () => this.#setInterval(channel) }, channel.slice(7)),
      (button, channel) => mark(button, "aria-pressed", channel === this.#interval),
    );
  }

  #chooseInterval() {
    const { channel } = this.#topic;
    const channels = this.#related.map((topic) => topic.channel).filter((each) => each.startsWith("candle_"));
    const wanted = channel.startsWith("candle_") ? channel : (this.#interval ?? channels[0] ?? null);
    if (wanted === this.#interval && wanted !== null) return;
    this.#setInterval(wanted);
  }

  #setInterval(channel) {
    this.#interval = channel;
    this.#candles.clear();
    this.chart.show(null);
    this.ohlc.replaceChildren();
    this.told = null;
    this.#refresh();
    this.onInterest();
    if (channel === null) put(this.chartNote, "No candles of this instrument are served. Add candle_1m to its channels in the configuration.");
    else {
      put(this.chartNote, "Loading candles");
      this.loadPast();
    }
  }

  /** Ask for the candles of the past, and again after the connection was away. */
  async loadPast() {
    if (this.#interval === null || this.#topic === null) return;
    const { venue, instrument } = this.#topic;
    const topic = `${this.#interval}:${venue}:${instrument}`;
    this.#asked += 1;
    const asked = this.#asked;
    const query = new URLSearchParams({ topic, limit: PAST, open: "true" });
    const { status, body } = await this.daemon.get(`api/v1/candles?${query}`);
    if (asked !== this.#asked || this.#topic === null) return; // another one is open by now
    if (status === 200) for (const candle of body.candles) this.#candles.take(candle);
    else this.pastNote = body?.error ?? "the past cannot be read now";
    this.chart.show(this.#candles);
    this.#drawChartNote();
  }

  #drawChartNote() {
    if (this.#interval === null) return;
    put(this.chartNote, this.#candles.size > 0 ? "" : this.pastNote ? `No candles: ${this.pastNote}.` : "No candles yet. The first comes with the next trade.");
    const { last } = this.#candles;
    const told = last === null ? "none yet" : `${this.#candles.size}, the last closes at ${last.close}`;
    mark(this.chart.element, "aria-label", `Candles of ${this.#topic.instrument}, ${this.#interval.slice(7)}: ${told}`);
  }

  /** Ask why the topic is as it is; older daemons do not know. */
  async explain() {
    const name = this.topic;
    if (name === null || this.noExplain) return;
    const { status, body } = await this.daemon.get(`api/v1/explain?${new URLSearchParams({ topic: name })}`);
    if (name !== this.topic) return;
    if (status === 404 && body?.code === "NOT_FOUND") this.noExplain = true;
    if (status !== 200) return;
    if (body?.verdict === undefined) return;
    show(this.whyPanel, true);
    this.#drawWhy(body);
  }

  /** The likely cause and what to do; then what the venue, the connection and the stream said. */
  #drawWhy(body) {
    const { verdict, state } = body;
    setState(this.verdict, verdict.healthy ? "ok" : "warn", verdict.cause.replaceAll("_", " "));
    put(this.whyText, verdict.text);
    put(this.whyAdvice, verdict.advice ?? "");
    show(this.whyAdvice, Boolean(verdict.advice));
    const line = body.lines?.[0];
    const rows = [];
    const tell = (name, value) => value && rows.push([name, value]);
    tell("So for", state?.state_s ? duration(state.state_s) : "");
    tell("Wanted by", body.wanted?.configured ?? body.wanted?.on_demand);
    tell("Speaks every", line?.speaks_every_s ? age(line.speaks_every_s) : "");
    tell("Stale after", line?.stale_after_s ? age(line.stale_after_s) : "");
    tell("Waits for", line?.waits_for?.replaceAll("_", " "));
    for (const { stream, state: word, reason } of (body.streams ?? []).slice(0, 4)) tell(`Stream ${stream}`, [word, reason].filter(Boolean).join(": "));
    for (const { feed, index, open, open_s: openS, last_error: error } of (body.connections ?? []).slice(0, 4)) {
      tell(`Connection ${feed} ${index}`, open ? `open for ${duration(openS ?? 0)}` : `closed${error ? `: ${error}` : ""}`);
    }
    for (const { endpoint, state: word } of body.breakers ?? []) if (word !== "closed") tell(`Breaker ${endpoint}`, word);
    for (const { budget, stopped, wait_s: waitS } of body.budgets ?? []) if (stopped || waitS > 1) tell(`Budget ${budget}`, `${age(waitS)} to wait`);
    tell("Last error", body.last_error);
    tell("Not decoded", body.bad_frames?.length ? plural(body.bad_frames.length, "frame") : "");
    tell("Gaps", body.gaps?.length ? `${count(body.gaps.length)}, the last ${duration(body.gaps[0].age_s)} ago` : "");
    const delay = body.latency;
    tell("Latency p50 / p99", Number.isFinite(delay?.venue_p50_s) ? `${latency(delay.venue_p50_s * 1000)} / ${latency(delay.venue_p99_s * 1000)}` : "");
    keyed(
      this.why,
      rows,
      ([name]) => name,
      ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
      (row, [, value]) => put(row.lastChild, value),
    );
  }

  // --- what comes ----------------------------------------------------------------------------------------------

  take(message, topic) {
    if (this.#topic === null || topic.venue !== this.#topic.venue || topic.instrument !== this.#topic.instrument) return;
    if (this.#topic.name === topic.name) this.#topic = topic;
    const { type, data } = message;
    if (type === "trade" || type === "liquidation") {
      this.#trades.unshift({ ...data, type, atMs: toMs(message.ts_event ?? message.ts_recv), key: `${topic.name} ${message.seq}` });
      this.#trades.length = Math.min(this.#trades.length, TRADES);
      this.#mark("tape");
    } else if (topic.channel === this.#interval && type === topic.channel) {
      if (this.#candles.take(data)) this.#mark("chart");
    } else if (type === "book" || (type === "status" && topic.channel === "book")) this.#mark("book");
    else if (type === "ticker") this.ticker = data;
    this.#mark("head");
  }

  /** Draw what is new, at most once per picture. */
  #mark(part) {
    this.#dirty.add(part);
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      const all = this.#dirty.has("all");
      const dirty = this.#dirty;
      this.#dirty = new Set();
      if (this.#topic === null) return;
      if (all || dirty.has("head")) this.#drawHead();
      if (all || dirty.has("book")) this.#drawBook();
      if (all || dirty.has("tape")) this.#drawTape();
      if (dirty.has("chart")) {
        this.chart.update();
        this.#drawChartNote();
      }
    });
  }

  /** Once a second: ages, and what the list learnt. */
  tick() {
    if (this.#topic === null) return;
    if (this.generation !== this.model.generation) {
      this.#refresh();
      if (this.#interval === null) this.#chooseInterval();
      this.onInterest();
    } else this.#refresh();
    this.#mark("all");
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  #of(channel) {
    return this.#related.find((topic) => topic.channel === channel) ?? null;
  }

  #drawHead() {
    const { instrument, venue, channel } = this.#topic;
    put(this.name, instrument);
    put(this.place, `${venue} · ${channel}`);
    const priced = this.#of("trade") ?? this.#of("price") ?? this.#of("ticker") ?? this.#of(this.#interval) ?? this.#topic;
    drawLast(this.price, priced);
    const shown = `${priced.name} ${priced.version}`;
    if (this.shown !== shown && this.shown?.startsWith(`${priced.name} `) && priced.moved) flash(this.priceBox, priced.moved);
    this.shown = shown;
    const quoted = this.#of("quote") ?? this.#of("book");
    const ticker = this.#of("ticker")?.message?.data;
    const { bid, ask, spread, change, high, low, volume } = this.stats;
    const { main, other } = quoted?.head ?? {};
    put(bid.value, decimal(main));
    put(ask.value, decimal(other));
    const middle = ladder({ bids: main ? [[main, "0"]] : [], asks: other ? [[other, "0"]] : [] }, 1);
    put(spread.value, middle.points === null ? "–" : basis(middle.points));
    const moved = ticker?.open_24h ? Number(ticker.last ?? ticker.mark_price) / Number(ticker.open_24h) - 1 : null;
    put(change.value, moved === null ? "–" : percent(moved));
    mark(change.value, "class", moved === null || moved === 0 ? "" : moved > 0 ? "up" : "fall");
    put(high.value, decimal(ticker?.high_24h));
    put(low.value, decimal(ticker?.low_24h));
    put(volume.value, decimal(ticker?.volume_24h));
    this.#drawFacts(ticker);
    this.#drawOthers();
  }

  /** The same elsewhere. What is not subscribed here is as new as the list of topics, a few seconds. */
  #drawOthers() {
    const { instrument, venue } = this.#topic;
    const { channel } = this.#of("trade") ?? this.#topic;
    const others = [];
    for (const topic of this.model.topics.values()) {
      if (topic.instrument === instrument && topic.channel === channel && topic.venue !== venue) others.push(topic);
    }
    show(this.othersPanel, others.length > 0);
    keyed(
      this.others,
      others.sort((a, b) => (a.venue < b.venue ? -1 : 1)),
      ({ name }) => name,
      (topic) => {
        const row = { state: stateOf(topic.state), main: h("span", {}), other: h("span", { class: "other" }), arrow: h("span", { class: "arrow" }) };
        const link = h("a", { href: write(topic.name) }, row.state, h("span", {}, topic.venue), h("span", { class: "last" }, row.arrow, row.main, row.other));
        const item = h("li", {}, link);
        item.parts = row;
        return item;
      },
      (item, topic) => {
        setState(item.parts.state, topic.state);
        drawLast(item.parts, topic);
      },
    );
  }

  #drawFacts(ticker) {
    const topic = this.#topic;
    const ageS = topic.atMs === null ? null : Math.max(0, (this.daemon.now() - topic.atMs) / 1000);
    setState(this.factsState, topic.state);
    const rows = [
      ["Topic", topic.name],
      ["Age", age(ageS), freshness(topic.channel, ageS, topic.state)],
      ["Why not live", topic.state === "live" ? "" : topic.reason],
      ["Sequence", count(topic.seq)],
      ["Messages", topic.messages ? count(topic.messages) : ""],
      ["Readers", count(topic.readers)],
      ["Origin", topic.message?.origin ?? ""],
      ["Venue's time", topic.message?.ts_event ? moment(toMs(topic.message.ts_event)) : ""],
      ["Mark price", ticker?.mark_price ? decimal(ticker.mark_price) : ""],
      ["Index price", ticker?.index_price ? decimal(ticker.index_price) : ""],
      ["Funding rate", ticker?.funding_rate ? percent(Number(ticker.funding_rate)).replace(/(\.\d\d) /, "$1 ") : ""],
      ["Next funding", ticker?.next_funding ? moment(toMs(ticker.next_funding)) : ""],
      ["Open interest", ticker?.open_interest ? decimal(ticker.open_interest) : ""],
      ["Epoch", this.live.epoch ?? ""],
    ];
    keyed(
      this.facts,
      rows.filter(([, value]) => value !== ""),
      ([name]) => name,
      ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})),
      (row, [, value, kind]) => {
        put(row.lastChild, value);
        mark(row.lastChild, "class", kind ?? null);
      },
    );
    put(this.raw, topic.message === null ? "None yet." : JSON.stringify(topic.message, null, 2));
  }

  /** Tell the candle under the pointer, or else the last one, in its own digits. */
  #drawOhlc(candle) {
    const told = [["", moment(candle.start / 1000).slice(0, 16)], ["O", decimal(candle.open)], ["H", decimal(candle.high)], ["L", decimal(candle.low)], ["C", decimal(candle.close)], ["V", decimal(candle.volume)]];
    if (candle.origin === "backfill") told.push(["", "filled in"]);
    const text = told.flat().join(" ");
    if (this.told === text) return;
    this.told = text;
    this.ohlc.replaceChildren(...told.map(([name, value]) => h("span", {}, name ? `${name} ` : "", h("b", {}, value))));
  }

  #drawBook() {
    const topic = this.#of("book");
    const book = topic === null ? undefined : this.live.books.get(topic.name);
    show(this.ladderBox, topic !== null);
    show(this.bookState, topic !== null);
    show(this.bookNote, topic === null);
    if (topic === null) {
      put(this.bookNote, "No book of this instrument is served. Add book to its channels in the configuration.");
      return;
    }
    setState(this.bookState, topic.state);
    this.ladderBox.setAttribute("aria-busy", String(book === undefined));
    const { bids, asks, spread, points } = ladder(book?.best(DEPTH) ?? { bids: [], asks: [] }, DEPTH);
    for (const [rungs, levels] of [[this.bids, bids], [this.asks, asks]]) {
      rungs.forEach((rung, i) => {
        const level = levels[i];
        put(rung.price, level ? decimal(level.price) : "\u00a0");
        put(rung.size, level ? decimal(level.size) : "");
        put(rung.sum, level ? decimal(total(level.total, level.size)) : "");
        rung.row.style.backgroundSize = `${level ? (level.share * 100).toFixed(1) : 0}% calc(100% - 2px)`;
      });
    }
    if (spread === null) put(this.spread, book === undefined ? `no book while it is ${topic.state === "live" ? "on its way" : topic.state}` : "one side is empty");
    else {
      const text = `${decimal(spread)} · ${basis(points)}`;
      if (this.spread.told !== text) this.spread.replaceChildren("spread ", h("b", {}, text));
      this.spread.told = text;
    }
    if (spread === null) this.spread.told = null;
  }

  #drawTape() {
    const topic = this.#of("trade") ?? this.#of("liquidation");
    show(this.tapeBox, topic !== null);
    show(this.tapeNote, topic === null);
    put(this.tapeNote, "No trades of this instrument are served. Add trade to its channels in the configuration.");
    keyed(
      this.tape,
      this.#trades,
      ({ key }) => key,
      ({ atMs, price, size, side, type }) => {
        const word = side === "buy" ? "▲ buy" : side === "sell" ? "▼ sell" : "–";
        const kind = side === "buy" ? "up" : side === "sell" ? "fall" : "quiet";
        return h("tr", {}, h("td", { class: "quiet" }, clock(atMs, { tenths: true })), h("td", { class: kind }, type === "liquidation" ? `${word} liq.` : word), h("td", { class: "num" }, decimal(price)), h("td", { class: "num" }, decimal(size)));
      },
      () => {},
    );
  }

  restyle() {
    this.chart.restyle();
  }
}

function arrow() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 20 20");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", "M12 4.5 6.5 10l5.5 5.5");
  svg.append(path);
  return svg;
}
