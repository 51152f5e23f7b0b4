/**
 * Reads pricefeedd, in browsers and in Node. No dependencies: copy it.
 *
 *   import { PricefeedClient } from "./feed.mjs";
 *   const client = new PricefeedClient("ws://127.0.0.1:8765/ws");
 *   client.addEventListener("data", ({ detail }) => console.log(detail.topic, detail.data));
 *   client.subscribe(["trade:*:*", "book:binance:BTC-USDT"]);
 *   client.connect();
 *
 * It comes back when the connection ends, asks for what it missed meanwhile (`since`), checks that no message is
 * missing, and keeps order books. Prices and sizes stay text, which is exact; times are integer µs, which a Number
 * holds exactly until the year 2255.
 */

/** The ceiling of the wait before a new connection doubles from the first to the last of these. */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;

/** The daemon greets first; a server that does not is another one, or stuck. */
const WELCOME_MS = 10_000;

/** Topics in one request: 200 make about 20 kB, and the daemon takes `welcome.limits.message_bytes` (64 kB). */
const TOPICS_AT_ONCE = 200;

/**
 * Of these each message is an event that comes once. Of the others only the newest state counts, and a reader that is
 * slow is told `conflated` in place of what was passed over.
 */
const EVENT_CHANNELS = new Set(["trade", "liquidation", "order", "execution", "position", "balance"]);

/** An order book. */
export class Book {
  constructor() {
    /** Levels by price. A price is found again by its number, as a venue may spell it "1.0" now and "1.00" later. */
    this.bids = new Map();
    this.asks = new Map();
  }

  /** Take a snapshot, or a delta: its sizes are absolute, and size 0 removes the level. */
  apply(data) {
    if (data.kind === "snapshot") {
      this.bids.clear();
      this.asks.clear();
    }
    for (const [side, levels] of [[this.bids, data.bids], [this.asks, data.asks]]) {
      for (const level of levels) {
        const price = Number(level[0]);
        if (Number(level[1]) === 0) side.delete(price);
        else side.set(price, level);
      }
    }
  }

  /** Return the best levels of both sides, best first, as [price, size]. */
  best(count) {
    const best = (side, sign) =>
      [...side.keys()].sort((a, b) => sign * (a - b)).slice(0, count).map((price) => side.get(price));
    return { bids: best(this.bids, -1), asks: best(this.asks, 1) };
  }
}

/** Where we stand in one topic. `seq` goes up by one per message, so a jump that nobody explained is a loss. */
class Topic {
  constructor(name) {
    this.name = name;
    this.eventsOnly = EVENT_CHANNELS.has(name.split(":", 1)[0]);
    this.begin();
  }

  /** Know nothing: the next message is the first. */
  begin() {
    this.seq = null;
    this.book = null;
    this.excused = 0; // the daemon said that up to here something was passed over
    this.hole = null;
    this.introducing = 3; // the newest data, the status, what came last: numbers may jump between them
    this.aside = false;
  }

  /** The number up to which all is accounted for. */
  get reached() {
    return Math.max(this.seq ?? 0, this.excused);
  }

  /** Take a message; return whether it is new, and which numbers it proves to be lost. */
  take({ type, seq, prev_seq: previous, data }) {
    const snapshot = type === "book" && data.kind === "snapshot";
    if (this.seq !== null && seq <= this.seq && !snapshot) return { isNew: false, lost: null };
    const aside = type === "status" || type === "gap";
    const introducing = this.introducing > 0 && (aside || this.aside);
    if (this.seq !== null && !introducing) {
      // With `every_ms` or `depth` numbers are passed over on purpose, and `prev_seq` says what this follows.
      const [first, last] = [this.reached + 1, previous ?? seq - 1];
      if (first <= last) this.hole = [this.hole?.[0] ?? first, last];
    }
    this.introducing = Math.max(0, this.introducing - 1);
    this.aside = aside;
    this.seq = seq;
    if (snapshot) this.hole = null; // whatever came before, this stands for it
    // `conflated` stands before the newest state, and behind a status or closed candle that kept its place.
    // So of a topic of state a hole is judged when the state comes.
    const keepsItsPlace = aside || (type.startsWith("candle") && data.closed);
    return { isNew: true, lost: keepsItsPlace && !this.eventsOnly ? null : this.settle() };
  }

  /** Return the numbers that are lost, once nothing can explain them any more. */
  settle() {
    const lost = this.hole;
    this.hole = null;
    return lost;
  }

  /** Note that the daemon accounted for all numbers up to this one. */
  excuse(toSeq) {
    this.excused = Math.max(this.excused, toSeq);
    if (this.hole && this.hole[1] <= toSeq) this.hole = null;
  }

  /** Take the number of a heartbeat, which follows all data sent before; return what it proves to be lost. */
  compare(seq, thinned) {
    let lost = this.settle();
    this.introducing = 0;
    if (thinned) return lost; // what is held back on purpose is still to come
    if (this.seq !== null && seq > this.reached) lost = [lost?.[0] ?? this.reached + 1, seq];
    this.seq = Math.max(this.seq ?? 0, seq);
    return lost;
  }
}

/** Whether a topic, or a pattern with `*`, means a topic. */
function means(pattern, name) {
  const parts = name.split(":");
  return pattern.split(":").every((part, i) => part === "*" || part === parts[i]);
}

/**
 * A connection that comes back. Its events, each with a `detail`:
 *
 *   data          a message of a topic as it came, `{type, topic, seq, ts_event, ts_recv, origin, data}`; books are
 *                 found in `books` by topic, and are up to date when this is told
 *   missed        {topic, from, to, reason}: numbers that we did not get; `to` is null if nobody can know
 *   conflated     {topic, dropped}: so many older states were passed over, because we were slow
 *   refused       {topic, code, message, did_you_mean}: this topic cannot be had
 *   connected     the daemon's `welcome`
 *   disconnected  {reason, retryMs}
 *   ended         {code, reason}: the daemon does not want us back
 */
export class PricefeedClient extends EventTarget {
  #url;
  #WebSocket;
  #firstWaitMs;
  #longestWaitMs;
  #random;
  #wanted = new Map(); // topic or pattern -> options
  #spelt = new Map(); // as we were asked -> as the daemon calls it: it takes a venue's own symbols as well
  #topics = new Map();
  #socket = null;
  #welcome = null;
  #bye = null;
  #attempt = 0;
  #timer = null;
  #heardAt = 0;
  #id = 0;

  /**
   * @param {string} url such as ws://127.0.0.1:8765/ws, with ?api_key=... where a key is needed: browsers let a page
   *   set no headers on a WebSocket.
   * @param {object} options `WebSocket`: the class to use where there is no global one; the rest is for tests.
   */
  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#firstWaitMs = options.firstWaitMs ?? FIRST_WAIT_MS;
    this.#longestWaitMs = options.longestWaitMs ?? LONGEST_WAIT_MS;
    this.#random = options.random ?? Math.random;
    if (this.#WebSocket === undefined) throw new TypeError("there is no WebSocket here; give one in options");
    /** Order books by topic: those that can be believed now. */
    this.books = new Map();
  }

  /** Connect, and come back whenever the connection ends, until `close`. */
  connect() {
    if (this.#socket !== null || this.#timer !== null) return;
    this.#open();
  }

  /** Leave, for good. */
  close() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const socket = this.#socket;
    this.#forgetSocket();
    socket?.close(1000);
  }

  /**
   * Have topics, `*` allowed for a part, now and after each reconnect.
   * @param {object} options `every_ms`, `depth`, `snapshot`, as the protocol says.
   */
  subscribe(topics, options = {}) {
    for (const topic of topics) this.#wanted.set(this.#spelt.get(topic) ?? topic, options);
    if (this.#welcome) this.#ask("subscribe", { topics, ...options });
  }

  /** Have topics or patterns no longer. */
  unsubscribe(topics) {
    const named = topics.map((topic) => this.#spelt.get(topic) ?? topic);
    for (const topic of named) this.#wanted.delete(topic);
    for (const name of [...this.#topics.keys()]) {
      if (this.#optionsOf(name) === undefined) this.#forget(name);
    }
    if (this.#welcome) this.#ask("unsubscribe", { topics: named });
  }

  // --- the connection ------------------------------------------------------------------------------------------

  #open() {
    this.#timer = null;
    this.#bye = null;
    let socket;
    try {
      socket = new this.#WebSocket(this.#url);
    } catch (error) {
      this.#end(0, error.message); // not an address, or one that a page of https may not use
      return;
    }
    this.#socket = socket;
    this.#heardAt = Date.now();
    this.#watch(socket, WELCOME_MS);
    // A socket that we gave up on may still speak: it is not listened to.
    const ifOurs = (act) => (event) => socket === this.#socket && act(event);
    socket.addEventListener("message", ifOurs((event) => this.#hear(event.data)));
    socket.addEventListener("close", ifOurs((event) => this.#lost(event.code, event.reason)));
    // Browsers say `close` with 1006 after it, old versions of Node nothing more.
    socket.addEventListener("error", ifOurs(() => this.#lost(1006, "the connection failed")));
  }

  /**
   * Give up on a connection on which nothing comes. A network that went away closes nothing, a page cannot send pings,
   * and the daemon sends something at least each `heartbeat_s`.
   */
  #watch(socket, patienceMs) {
    const silentMs = Date.now() - this.#heardAt;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (socket !== this.#socket) return;
      if (Date.now() - this.#heardAt < patienceMs) this.#watch(socket, patienceMs);
      else this.#drop(`nothing came for ${patienceMs / 1000} s`);
    }, patienceMs - silentMs);
  }

  /** Give up on the connection, and come back. Its `close` is not waited for: that may take minutes. */
  #drop(reason) {
    const socket = this.#socket;
    this.#lost(1006, reason);
    socket.close();
  }

  #forgetSocket() {
    this.#socket = null;
    this.#welcome = null;
    // A book without its updates is one of the past. After reconnecting it begins with a snapshot.
    this.books.clear();
    for (const topic of this.#topics.values()) topic.book = null;
  }

  #lost(closeCode, closeReason) {
    clearTimeout(this.#timer);
    const code = this.#bye?.code ?? closeCode;
    const reason = this.#bye?.reason || closeReason || "the connection ended";
    const pauseMs = this.#bye?.retry_after_ms ?? 0;
    this.#forgetSocket();
    if (code >= 4500 && code < 5000) {
      this.#end(code, reason);
      return;
    }
    // Full jitter: all clients of a daemon lose it at the same moment, and must not return at the same one.
    const ceiling = Math.min(this.#longestWaitMs, this.#firstWaitMs * 2 ** this.#attempt);
    this.#attempt += 1;
    const retryMs = pauseMs + this.#random() * ceiling;
    this.#timer = setTimeout(() => this.#open(), retryMs);
    this.#tell("disconnected", { code, reason, retryMs });
  }

  #end(code, reason) {
    this.#timer = null;
    this.#tell("ended", { code, reason });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // --- requests ------------------------------------------------------------------------------------------------

  #ask(op, fields) {
    this.#id += 1;
    this.#socket.send(JSON.stringify({ op, id: this.#id, ...fields }));
  }

  /** The options with which a topic is had; undefined if it is not. */
  #optionsOf(name) {
    if (this.#wanted.has(name)) return this.#wanted.get(name);
    for (const [pattern, options] of this.#wanted) if (means(pattern, name)) return options;
    return undefined;
  }

  /**
   * Subscribe everything: first each topic that we know by its own name, from where it stands, then what is wanted.
   *
   * A pattern's topics are named because `since` speaks of those alone that its own request subscribes, and because
   * it can be cut into requests that are not too large. Once the pattern holds them, the names are let go of.
   */
  #resume() {
    const byOptions = new Map();
    for (const [name, topic] of this.#topics) {
      if (topic.seq === null) continue;
      const options = this.#optionsOf(name);
      if (!byOptions.has(options)) byOptions.set(options, []);
      byOptions.get(options).push(topic);
    }
    const lent = [];
    for (const [options, known] of byOptions) {
      for (const piece of pieces(known)) {
        const seq = Object.fromEntries(piece.map((topic) => [topic.name, topic.seq]));
        const topics = piece.map((topic) => topic.name);
        this.#ask("subscribe", { topics, ...options, since: { epoch: this.epoch, seq } });
        lent.push(...topics.filter((name) => !this.#wanted.has(name)));
      }
    }
    const wanted = new Map();
    for (const [topic, options] of this.#wanted) {
      if (!wanted.has(options)) wanted.set(options, []);
      wanted.get(options).push(topic);
    }
    for (const [options, topics] of wanted) {
      for (const piece of pieces(topics)) this.#ask("subscribe", { topics: piece, ...options });
    }
    for (const piece of pieces(lent)) this.#ask("unsubscribe", { topics: piece });
  }

  // --- what comes ----------------------------------------------------------------------------------------------

  #hear(text) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      this.#drop("this is no pricefeedd: what came is not JSON");
      return;
    }
    // A list with ?batch_ms= in the URL.
    for (const message of Array.isArray(frame) ? frame : [frame]) {
      if (this.#socket === null) return; // closed by whoever took the message before
      if (message.topic === undefined) this.#hearOfConnection(message);
      else if (this.#optionsOf(message.topic) !== undefined) this.#take(message);
      // Otherwise it was on its way when it was unsubscribed.
    }
  }

  /** Take what concerns the connection. Types that are not known here are passed over: more may come. */
  #hearOfConnection(message) {
    switch (message.type) {
      case "welcome":
        this.#welcomed(message);
        break;
      case "ack":
        if (message.op === "subscribe") for (const result of message.results) this.#subscribed(result);
        break;
      case "error":
        this.#tell("refused", { topic: null, ...message.error });
        break;
      case "heartbeat":
        for (const [name, seq] of Object.entries(message.seq)) {
          const options = this.#optionsOf(name);
          if (options === undefined) continue;
          const topic = this.#topic(name);
          this.#missed(topic, topic.compare(seq, options.every_ms !== undefined || options.depth !== undefined));
        }
        break;
      case "bye":
        this.#bye = message;
        break;
    }
  }

  #subscribed({ topic, ok, error, as }) {
    if (!ok) {
      this.#tell("refused", { topic, ...error });
    } else if (as !== undefined && this.#wanted.has(topic)) {
      this.#spelt.set(topic, as);
      this.#wanted.set(as, this.#wanted.get(topic));
      this.#wanted.delete(topic);
    }
  }

  #welcomed(welcome) {
    this.#welcome = welcome;
    this.#watch(this.#socket, 2000 * welcome.heartbeat_s + 1000);
    if (this.epoch !== undefined && this.epoch !== welcome.epoch) {
      // The daemon began anew: numbers start again, and nobody knows what happened in between.
      for (const { name, seq } of this.#topics.values()) {
        this.#tell("missed", { topic: name, from: (seq ?? 0) + 1, to: null, reason: "the epoch changed" });
      }
      this.#topics.clear();
    }
    /** One life of the daemon's streams; `seq` means something within it only. */
    this.epoch = welcome.epoch;
    this.#resume();
    this.#tell("connected", welcome);
  }

  #topic(name) {
    let topic = this.#topics.get(name);
    if (topic === undefined) this.#topics.set(name, (topic = new Topic(name)));
    return topic;
  }

  #forget(name) {
    this.#topics.delete(name);
    this.books.delete(name);
  }

  #take(message) {
    const { type, seq, data } = message;
    const topic = this.#topic(message.topic);
    // Only data sets the backoff back: a connection that opens and dies again is no success.
    this.#attempt = 0;
    if (type === "conflated") {
      topic.excuse(seq - 1);
      this.#tell("conflated", { topic: topic.name, dropped: data.dropped });
    } else if (type === "gap" && data.from_seq !== undefined) {
      // About this reader, not one of the topic's own numbered events.
      if (data.to_seq === null) topic.begin();
      else topic.excuse(data.to_seq);
      this.#tell("missed", { topic: topic.name, from: data.from_seq, to: data.to_seq, reason: data.reason });
    } else {
      const { isNew, lost } = topic.take(message);
      this.#missed(topic, lost);
      if (isNew && this.#socket !== null) {
        this.#keep(topic, message);
        this.#tell("data", message);
      }
    }
  }

  #missed(topic, lost) {
    if (lost === null) return;
    const broken = topic.book !== null;
    this.#tell("missed", { topic: topic.name, from: lost[0], to: lost[1], reason: "the numbers jumped" });
    // Should never happen. What lost a part of this connection may lose more of it: come back for a snapshot.
    if (broken) this.#drop(`${topic.name} lost an update`);
  }

  #keep(topic, { type, data }) {
    if (type === "status" && ["connecting", "resyncing", "down"].includes(data.state)) {
      topic.book = null; // the venue's side is broken: a snapshot follows when it is mended
    } else if (type === "book") {
      if (data.kind === "snapshot") topic.book = new Book();
      topic.book?.apply(data);
    }
    if (topic.book === null) this.books.delete(topic.name);
    else this.books.set(topic.name, topic.book);
  }
}

function* pieces(list) {
  for (let at = 0; at < list.length; at += TOPICS_AT_ONCE) yield list.slice(at, at + TOPICS_AT_ONCE);
}
