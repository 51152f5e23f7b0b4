/** The list of topics: searched, ordered, walked by keyboard, and only as much of it drawn as is in sight. */
import { byId, h, mark, put, setState, show, stateOf } from "./dom.mjs";
import { age, count, decimal } from "./format.mjs";
import { write } from "./route.mjs";
import { arrange, inSight, reveal, SORTS, step } from "./rows.mjs";
import { freshness, STATES } from "./states.mjs";

const COLUMNS = [
  ["state", "State", ""],
  ["instrument", "Instrument", ""],
  ["venue", "Venue", ""],
  ["channel", "Channel", ""],
  [null, "Last", "num"],
  ["age", "Age", "num"],
  ["messages", "Messages", "num"],
  ["readers", "Readers", "num"],
];

/** While much changes the order is made anew no more often than this. */
const ARRANGE_MS = 1000;

export class Topics {
  #list = [];
  #rows = [];
  #chosen = null;
  #sort = { by: "state", down: false }; // trouble first
  #seen = { generation: -1, atMs: 0, key: "" };
  #onSight;

  /** @param onSight is told the topics in sight when they change */
  constructor(model, daemon, onSight) {
    this.model = model;
    this.daemon = daemon;
    this.#onSight = onSight;
    this.search = byId("search");
    this.filters = { channel: byId("channel"), venue: byId("venue"), state: byId("state") };
    this.heads = COLUMNS.map(([by, title, kind]) =>
      h(
        "div",
        { role: "columnheader", class: `${kind} c-${by ?? "last"}` },
        by === null ? title : h("button", { type: "button", tabindex: "-1", onclick: () => this.#sortBy(by) }, title),
      ),
    );
    this.rows = h("div", { class: "rows", role: "rowgroup" });
    this.headRow = h("div", { class: "line heads", role: "row", "aria-rowindex": "1" }, ...this.heads);
    this.grid = h(
      "div",
      { class: "grid", role: "grid", tabindex: "0", "aria-labelledby": "topics-title", "aria-describedby": "topics-count", "aria-colcount": COLUMNS.length },
      h("div", { class: "top-row", role: "rowgroup" }, this.headRow),
      this.rows,
    );
    this.empty = h("p", { class: "empty" });
    byId("grid").append(this.grid, this.empty);

    this.grid.addEventListener("scroll", () => this.#draw(), { passive: true });
    new ResizeObserver(() => this.#draw()).observe(this.grid);
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.grid.addEventListener("focus", () => this.#choose(this.#at() ?? 0, { scroll: false }));
    this.search.addEventListener("input", () => this.#again());
    this.search.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && this.#list.length > 0) this.#open(this.#list[this.#at() ?? 0]);
      else if (event.key === "ArrowDown") {
        event.preventDefault();
        this.grid.focus();
      }
    });
    for (const select of Object.values(this.filters)) select.addEventListener("change", () => this.#again());
    this.sorter = byId("sort");
    this.sorter.append(...SORTS.map((by) => h("option", { value: by }, `by ${by}`)));
    this.sorter.value = this.#sort.by;
    this.sorter.addEventListener("change", () => this.#sortBy(this.sorter.value));
    this.#options();
  }

  /** Topics in sight. */
  get inSight() {
    return this.#rows.filter((row) => !row.hidden).map((row) => row.topic);
  }

  focus() {
    this.grid.focus({ preventScroll: true });
    const at = this.#at();
    if (at !== null) this.#choose(at);
  }

  /** Go to the next or the previous one of the list, from the one that is open; return it. */
  neighbour(name, key) {
    const row = this.#list.findIndex((topic) => topic.name === name);
    const to = step(key, { row: row === -1 ? null : row, total: this.#list.length, page: 1 });
    if (to === null) return null;
    this.#chosen = this.#list[to].name;
    return this.#list[to];
  }

  // --- which, and in which order -------------------------------------------------------------------------------

  #filter() {
    const { channel, venue, state } = this.filters;
    return { search: this.search.value, channel: channel.value, venue: venue.value, state: state.value };
  }

  #sortBy(by) {
    this.#sort = { by, down: this.#sort.by === by ? !this.#sort.down : by === "messages" || by === "readers" };
    this.sorter.value = by;
    this.#again();
  }

  #again() {
    this.grid.scrollTop = 0;
    this.update(true);
  }

  /** Fill the choices with what there is, and keep what was chosen. */
  #options() {
    const values = { channel: new Set(), venue: new Set(), state: new Set(STATES) };
    for (const { channel, venue } of this.model.topics.values()) {
      values.channel.add(channel);
      values.venue.add(venue);
    }
    for (const [name, select] of Object.entries(this.filters)) {
      const wanted = ["", ...[...values[name]].sort()];
      if (select.value && !wanted.includes(select.value)) wanted.push(select.value);
      const now = [...select.options].map((option) => option.value);
      if (wanted.join() === now.join()) continue;
      const { value } = select;
      select.replaceChildren(...wanted.map((word) => h("option", { value: word }, word || `All ${name}s`)));
      select.value = value;
    }
  }

  /** Arrange and draw; what only ticks is drawn by `tick`. */
  update(now = false) {
    const { model } = this;
    const changed = model.generation !== this.#seen.generation;
    const old = Date.now() - this.#seen.atMs >= ARRANGE_MS;
    // What is ordered by what moves is ordered anew as well.
    const moves = this.filters.state.value !== "" || ["age", "messages", "readers", "state"].includes(this.#sort.by);
    if (!now && !(old && (changed || moves))) return;
    if (changed) this.#options();
    this.#seen = { generation: model.generation, atMs: Date.now() };
    this.#list = arrange(model.topics.values(), this.#filter(), this.#sort);
    const total = model.topics.size;
    put(byId("topics-count"), this.#list.length === total ? count(total) : `${count(this.#list.length)} of ${count(total)}`);
    mark(this.grid, "aria-rowcount", this.#list.length + 1);
    this.heads.forEach((head, i) => {
      const mine = COLUMNS[i][0] === this.#sort.by;
      mark(head, "aria-sort", mine ? (this.#sort.down ? "descending" : "ascending") : null);
    });
    show(this.grid, this.#list.length > 0);
    show(this.empty, this.#list.length === 0);
    put(
      this.empty,
      total > 0
        ? "No topic has all of this in its name. Search for parts of channel, venue and instrument, such as “book btc”."
        : "No topics are served yet. They appear when a venue is connected, or when a client subscribes to one that is configured on_demand.",
    );
    this.#draw();
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  /** The part of the list that is seen, below the heads, which stay. */
  get #window() {
    const { scrollTop: top, clientHeight } = this.grid;
    return { top, height: Math.max(0, clientHeight - this.headRow.offsetHeight), rowHeight: this.narrow ? 56 : 34 };
  }

  #draw() {
    this.narrow = matchMedia("(max-width: 720px)").matches;
    const { top, height, rowHeight } = this.#window;
    const total = this.#list.length;
    this.rows.style.height = `${total * rowHeight}px`;
    const { first, last } = inSight({ top, height, rowHeight, total });
    while (this.#rows.length < last - first) this.#rows.push(this.#make());
    // A row keeps its element while it is in sight, so that nothing flickers and a screen reader stays where it is.
    const free = [];
    const kept = new Map();
    for (const row of this.#rows) {
      const at = row.at;
      if (!row.hidden && at >= first && at < last && this.#list[at] === row.topic) kept.set(at, row);
      else free.push(row);
    }
    let next = this.rows.firstElementChild;
    for (let at = first; at < last; at += 1) {
      const row = kept.get(at) ?? free.pop();
      // In the order in which they are seen, as those who listen to the page hear them in that of the document.
      if (row === next) next = next.nextElementSibling;
      else this.rows.insertBefore(row, next);
      if (!kept.has(at)) this.#bind(row, this.#list[at], at, rowHeight);
      else row.style.transform = `translateY(${at * rowHeight}px)`;
      mark(row, "aria-selected", row.topic.name === this.#chosen);
      row.classList.toggle("chosen", row.topic.name === this.#chosen);
    }
    for (const row of free) row.hidden = true;
    this.#point();
    this.tick();
    this.#onSight();
  }

  #make() {
    const parts = {
      state: stateOf("connecting"),
      instrument: h("span", { role: "gridcell", class: "instrument" }),
      venue: h("span", { role: "gridcell", class: "c-venue" }),
      channel: h("span", { role: "gridcell", class: "c-channel" }),
      arrow: h("span", { class: "arrow" }),
      main: h("span", {}),
      other: h("span", { class: "other" }),
      age: h("span", { role: "gridcell", class: "num age" }),
      messages: h("span", { role: "gridcell", class: "num quiet c-messages" }),
      readers: h("span", { role: "gridcell", class: "num quiet c-readers" }),
    };
    parts.last = h("span", { role: "gridcell", class: "last" }, parts.arrow, parts.main, parts.other);
    const row = h(
      "div",
      { role: "row", class: "line", onclick: () => this.#open(row.topic) },
      h("span", { role: "gridcell", class: "c-state" }, parts.state),
      parts.instrument,
      parts.venue,
      parts.channel,
      parts.last,
      parts.age,
      parts.messages,
      parts.readers,
    );
    row.parts = parts;
    this.rows.append(row);
    return row;
  }

  #bind(row, topic, at, rowHeight) {
    row.topic = topic;
    row.at = at;
    row.hidden = false;
    row.version = null;
    row.style.transform = `translateY(${at * rowHeight}px)`;
    mark(row, "id", `row-${at}`);
    mark(row, "aria-rowindex", at + 2);
    put(row.parts.instrument, topic.instrument);
    mark(row.parts.instrument, "title", topic.name);
    put(row.parts.venue, topic.venue);
    put(row.parts.channel, topic.channel);
    mark(row.parts.channel, "data-venue", topic.venue);
  }

  /** Draw what ticks. */
  tick() {
    const now = this.daemon.now();
    for (const row of this.#rows) {
      if (row.hidden) continue;
      const { topic, parts } = row;
      setState(parts.state, topic.state);
      mark(parts.state, "title", topic.reason || null);
      const ageS = topic.atMs === null ? null : Math.max(0, (now - topic.atMs) / 1000);
      put(parts.age, age(ageS));
      mark(parts.age, "class", `num age ${freshness(topic.channel, ageS, topic.state)}`);
      put(parts.messages, count(topic.messages));
      put(parts.readers, count(topic.readers));
      if (row.version === topic.version) continue;
      const ticked = row.version !== null;
      row.version = topic.version;
      drawLast(parts, topic);
      if (ticked && topic.moved !== null) flash(parts.last, topic.moved);
    }
  }

  // --- walking -------------------------------------------------------------------------------------------------

  #at() {
    const at = this.#list.findIndex((topic) => topic.name === this.#chosen);
    return at === -1 ? null : at;
  }

  #choose(at, { scroll = true } = {}) {
    if (this.#list.length === 0) return;
    this.#chosen = this.#list[at].name;
    if (scroll) {
      this.grid.scrollTop = reveal({ row: at, ...this.#window });
    }
    this.#draw();
  }

  /** Tell which row is the active one: focus stays with the grid, as rows come and go. */
  #point() {
    const row = this.#rows.find((each) => !each.hidden && each.topic.name === this.#chosen);
    mark(this.grid, "aria-activedescendant", row ? row.id : null);
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== this.grid) return;
    this.walk(event);
  }

  /** Do what a key asks of the list; the page hands over those pressed elsewhere. */
  walk(event) {
    const { height, rowHeight } = this.#window;
    const page = Math.max(1, Math.floor(height / rowHeight) - 1);
    const to = step(event.key, { row: this.#at(), total: this.#list.length, page });
    if (to !== null) {
      event.preventDefault();
      this.#choose(to);
    } else if (event.key === "Enter" && this.#at() !== null) {
      event.preventDefault();
      this.#open(this.#list[this.#at()]);
    }
  }

  #open(topic) {
    this.#chosen = topic.name;
    location.hash = write(topic.name);
  }
}

/** Show the value that tells most. */
export function drawLast(parts, topic) {
  const { head, moved } = topic;
  put(parts.arrow, moved === "up" ? "▲" : moved === "down" ? "▼" : "");
  mark(parts.arrow, "class", `arrow ${moved === "up" ? "up" : "fall"}`);
  put(parts.main, head === null ? "–" : (head.word ?? decimal(head.main)));
  put(parts.other, head?.other === undefined ? "" : ` / ${decimal(head.other)}`);
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Light up, anew each time. */
export function flash(element, moved) {
  if (still.matches) return;
  element.flashing?.cancel();
  const wash = moved === "up" ? "var(--good-wash)" : "var(--bad-wash)";
  element.flashing = element.animate([{ backgroundColor: wash }, { backgroundColor: "transparent" }], { duration: 700, easing: "ease-out" });
}
