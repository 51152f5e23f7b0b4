/** What is known of the daemon, from both its doors. Bounded: topics that it serves no more go, and all else is cut. */
import { Meter, Ring } from "./series.mjs";
import { direction, headline } from "./states.mjs";

/** Samples of a sparkline: at one per second, a minute and a half. */
export const SAMPLES = 90;

/** One topic, as the list shows it. */
export class Topic {
  constructor(name) {
    this.name = name;
    [this.channel, this.venue, ...this.rest] = name.split(":");
    this.instrument = this.rest.join(":");
    delete this.rest;
    this.state = "connecting";
    this.reason = "";
    this.seq = 0;
    this.messages = 0;
    this.readers = 0;
    this.atMs = null;
    this.head = null;
    this.message = null;
    this.moved = null;
    this.version = 0;
  }

  say(head) {
    if (head === null) return;
    const moved = direction(this.head?.main, head.main);
    if (moved !== null) this.moved = moved;
    if (head.main !== this.head?.main || head.other !== this.head?.other) this.version += 1;
    this.head = head;
  }
}

/** One market of a venue, and how it went. */
class Market {
  constructor(venue, name) {
    this.venue = venue;
    this.name = name;
    this.meter = new Meter();
    this.rates = new Ring(SAMPLES);
    this.latencies = new Ring(SAMPLES);
    this.facts = null;
  }

  take(facts, nowMs) {
    this.facts = facts;
    const rate = this.meter.take(facts.total_messages, nowMs);
    if (rate !== null) this.rates.push(rate);
    this.latencies.push(facts.latency?.venue_ms?.p50 ?? facts.latency?.publish_ms?.p50 ?? null);
  }
}

export class Model {
  topics = new Map();
  markets = new Map();
  /** Of `/status`; null where it is not known. */
  status = null;
  ready = null;
  reasons = [];
  /** Whether `/status` is refused to this key. */
  closed = false;
  meter = new Meter();
  rates = new Ring(SAMPLES);
  frames = new Meter();
  frameRate = null;
  /** Grows with each topic that comes or goes. */
  generation = 0;

  /** Forget what belonged to a life of the daemon that is over. */
  begin() {
    for (const topic of this.topics.values()) {
      topic.seq = 0;
      topic.atMs = null;
    }
  }

  /** Take `/status`, or `/ready`, which tells a part of it. */
  takeStatus(body, nowMs) {
    const whole = body.version !== undefined;
    this.status = whole ? body : null;
    this.ready = whole ? body.ready : body.status === "ready";
    this.reasons = body.reasons ?? [];
    const seen = new Set();
    let messages = 0;
    for (const [venue, markets] of Object.entries(body.venues ?? {})) {
      for (const [name, facts] of Object.entries(markets)) {
        const key = `${venue} ${name}`;
        seen.add(key);
        if (!this.markets.has(key)) this.markets.set(key, new Market(venue, name));
        this.markets.get(key).take(facts, nowMs);
        messages += facts.total_messages ?? 0;
      }
    }
    for (const key of this.markets.keys()) if (!seen.has(key)) this.markets.delete(key);
    this.messages = body.source ? body.topics?.published ?? messages : messages;
    const rate = this.meter.take(this.messages, nowMs);
    if (rate !== null) this.rates.push(rate);
    if (whole) this.frameRate = this.frames.take(body.clients?.frames ?? 0, nowMs) ?? this.frameRate;
  }

  /** Take `/feeds`. What came over the WebSocket since is newer, and stays. */
  takeFeeds(body, nowMs) {
    if (this.epoch !== undefined && this.epoch !== body.epoch) this.begin();
    this.epoch = body.epoch;
    const seen = new Set();
    for (const row of body.feeds) {
      seen.add(row.topic);
      let topic = this.topics.get(row.topic);
      if (topic === undefined) {
        this.topics.set(row.topic, (topic = new Topic(row.topic)));
        this.generation += 1;
      }
      topic.messages = row.messages;
      topic.readers = row.readers;
      if (row.seq < topic.seq) continue;
      topic.seq = row.seq;
      topic.state = row.state;
      if (row.age_s !== null) topic.atMs = nowMs - row.age_s * 1000;
      if (row.last !== null) topic.say(headline(topic.channel, row.last));
    }
    for (const name of this.topics.keys()) {
      if (seen.has(name)) continue;
      this.topics.delete(name);
      this.generation += 1;
    }
  }

  /** Take a message of the WebSocket; return its topic. */
  takeMessage(message, books) {
    const { type, topic: name, seq, data } = message;
    let topic = this.topics.get(name);
    if (topic === undefined) {
      this.topics.set(name, (topic = new Topic(name)));
      this.generation += 1;
    }
    topic.seq = seq;
    if (type === "status") {
      topic.state = data.state;
      topic.reason = data.reason ?? "";
      return topic;
    }
    if (type === "gap") return topic;
    topic.message = message;
    topic.atMs = message.ts_recv / 1000;
    if (type === "book") {
      const best = books.get(name)?.best(1);
      if (best !== undefined) topic.say({ main: best.bids[0]?.[0] ?? null, other: best.asks[0]?.[0] ?? null });
    } else topic.say(headline(topic.channel, data));
    return topic;
  }

  /** The topics of one instrument at one venue, in the order of channels. */
  of(venue, instrument) {
    const found = [];
    for (const topic of this.topics.values()) {
      if (topic.venue === venue && topic.instrument === instrument) found.push(topic);
    }
    const order = ["trade", "quote", "ticker", "price", "book", "liquidation", "candle_1m", "candle_5m", "candle_15m", "candle_1h", "candle_4h", "candle_1d"];
    return found.sort((a, b) => order.indexOf(a.channel) - order.indexOf(b.channel));
  }

  /** How many topics are in each state. */
  states() {
    if (this.status?.topics?.states) return this.status.topics.states;
    const states = {};
    for (const { state } of this.topics.values()) states[state] = (states[state] ?? 0) + 1;
    return states;
  }
}
