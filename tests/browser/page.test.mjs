// Run with `node --test` in this folder: the parts of the status page that need no browser.
import assert from "node:assert/strict";
import { test } from "node:test";

const from = (name) => import(`../../pricefeedd/web/static/${name}.mjs`);
const { Candles, digits } = await from("candles");
const format = await from("format");
const { changes, forInstrument, forRows } = await from("interest");
const { ladder, spread, total } = await from("ladder");
const { Model } = await from("model");
const { pause } = await from("pace");
const route = await from("route");
const { arrange, inSight, reveal, step, SORTS } = await from("rows");
const { Meter, Ring, spark } = await from("series");
const { direction, freshness, headline, marketState, severity } = await from("states");

const topicOf = (name, more = {}) => {
  const [channel, venue, instrument] = name.split(":");
  return { name, channel, venue, instrument, state: "live", atMs: 0, messages: 0, readers: 0, ...more };
};
const BTC = topicOf("trade:binance:BTC-USDT");
const BOOK = topicOf("book:binance:BTC-USDT");
const ETH = topicOf("quote:kraken:ETH-USD", { state: "stale", atMs: 5, messages: 7 });

test("decimal text keeps each digit and is grouped", () => {
  const narrow = "\u202f";
  assert.equal(format.decimal("83772.60"), `83${narrow}772.60`);
  assert.equal(format.decimal("0.00001780"), "0.00001780");
  assert.equal(format.decimal("-1234567"), `-1${narrow}234${narrow}567`);
  assert.equal(format.decimal("1234.56789012"), `1${narrow}234.56789012`);
  assert.equal(format.decimal(null), "–");
});

test("counts, rates, sizes and times are short", () => {
  assert.deepEqual([0, 9999, 15_234, 2_500_000, 7e9].map(format.short), ["0", "9999", "15.2k", "2.5M", "7.0G"]);
  assert.deepEqual([0.5, 99.94, 153.4, 20_000, null].map(format.rate), ["0.5", "99.9", "153", "20.0k", "–"]);
  assert.deepEqual([0, 999, 1500, 87_912_448].map(format.bytes), ["0 B", "999 B", "1.5 kB", "87.9 MB"]);
  assert.deepEqual([0.25, 1.5, 24.94, 153.2, 12_000].map(format.latency), ["250 µs", "1.50 ms", "24.9 ms", "153 ms", "12 s"]);
  assert.deepEqual([0.04, 9.96, 59, 61, 3725, 90_000].map(format.age), ["0.0 s", "10.0 s", "59 s", "1 min 01 s", "1 h 02 min", "1 d 1 h"]);
  assert.equal(format.age(-3), "0.0 s", "a clock that is ahead");
  assert.deepEqual([1, 1001, 0].map(format.wait), ["1 s", "2 s", "1 s"]);
  assert.deepEqual([0.0017, 0.25, 7.289, 0].map(format.basis), ["0.0017 bp", "0.25 bp", "7.29 bp", "0.00 bp"]);
});

test("an axis shows as many digits as its steps have", () => {
  assert.deepEqual([50, 2.5, 2, 0.25, 0.1, 0.05, 1e-8].map(format.digitsOf), [0, 1, 0, 2, 1, 2, 8]);
  assert.equal(format.digitsOf(60_002.5 - 60_000), 1);
  assert.equal(format.digitsOf(0.30000000000000004 - 0.2), 1);
});

test("times come in three units and as text", () => {
  const ms = 1_795_291_863_854;
  assert.equal(format.toMs(ms * 1000), ms);
  assert.equal(format.toMs(ms * 1e6), ms);
  assert.equal(format.toMs(ms), ms);
  assert.equal(format.toMs(Math.floor(ms / 1000)), ms - 854);
  assert.equal(format.toMs("2026-11-21T20:11:05.879+00:00"), 1_795_291_865_879);
  assert.deepEqual([null, undefined, "", "soon"].map(format.toMs), [null, null, null, null]);
});

test("an age is judged by its channel, and the daemon's word comes first", () => {
  assert.equal(freshness("trade", 1, "live"), "fresh");
  assert.equal(freshness("trade", 12, "live"), "aging");
  assert.equal(freshness("trade", 31, "live"), "late");
  assert.equal(freshness("trade", 1, "stale"), "late");
  assert.equal(freshness("liquidation", 86_400, "live"), "fresh", "silence is no sign");
  assert.equal(freshness("candle_1h", 3500, "live"), "fresh");
  assert.equal(freshness("candle_1h", 5000, "live"), "aging");
  assert.equal(freshness("quote", null, "connecting"), "aging");
});

test("a market has one word", () => {
  const facts = { healthy: true, circuit_state: "closed", active_connections: 2 };
  assert.equal(marketState(facts), "live");
  assert.equal(marketState({ ...facts, active_connections: 0 }), "idle");
  assert.equal(marketState({ ...facts, healthy: false }), "stale");
  assert.equal(marketState({ ...facts, healthy: false, active_connections: 0 }), "down");
  assert.equal(marketState({ ...facts, circuit_state: "half-open" }), "resyncing");
  assert.equal(marketState({ ...facts, circuit_state: "open" }), "down");
  assert.deepEqual(["info", "WARNING", "critical", "down", "live", "novel"].map(severity), ["info", "warning", "error", "error", "info", "info"]);
});

test("each channel has a value that tells most", () => {
  assert.deepEqual(headline("trade", { price: "1", side: "buy" }), { main: "1", side: "buy" });
  assert.deepEqual(headline("quote", { bid_price: "1", ask_price: null }), { main: "1", other: null });
  assert.deepEqual(headline("ticker", { mark_price: "3" }), { main: "3" });
  assert.deepEqual(headline("candle_5m", { close: "4" }), { main: "4" });
  assert.deepEqual(headline("order", { status: "filled" }), { word: "filled" });
  assert.equal(headline("trade", null), null);
  assert.deepEqual([direction("1", "2"), direction("2", "1.0"), direction("1.0", "1"), direction(null, "1")], ["up", "down", null, null]);
});

test("the list is searched by parts, filtered, and ordered", () => {
  const all = [BTC, BOOK, ETH];
  const names = (filter, sort = { by: "instrument", down: false }) => arrange(all, filter, sort).map(({ name }) => name);
  assert.deepEqual(names({}), [BOOK.name, BTC.name, ETH.name]);
  assert.deepEqual(names({ search: " BTC  trade " }), [BTC.name]);
  assert.deepEqual(names({ search: "nothing" }), []);
  assert.deepEqual(names({ venue: "kraken" }), [ETH.name]);
  assert.deepEqual(names({ channel: "book", venue: "kraken" }), []);
  assert.deepEqual(names({}, { by: "state", down: false })[0], ETH.name, "trouble first");
  assert.deepEqual(names({}, { by: "messages", down: true })[0], ETH.name);
  for (const by of SORTS) {
    assert.deepEqual(names({}, { by, down: false }).length, 3);
    assert.deepEqual(names({}, { by, down: true }).length, 3);
  }
  const many = ["A10", "A2", "A1"].map((instrument) => topicOf(`trade:x:${instrument}`));
  assert.deepEqual(arrange(many, {}, { by: "instrument" }).map(({ instrument }) => instrument), ["A1", "A2", "A10"]);
});

test("ten thousand topics are arranged in a moment", () => {
  const many = Array.from({ length: 10_000 }, (_, i) => topicOf(`trade:binance:A${i}-USDT`));
  const began = performance.now();
  assert.equal(arrange(many, { search: "a99" }, { by: "instrument" }).length, 111);
  assert.equal(arrange(many, {}, { by: "instrument" }).length, 10_000);
  assert.ok(performance.now() - began < 1500);
});

test("only rows in sight are drawn", () => {
  const rowHeight = 34;
  assert.deepEqual(inSight({ top: 0, height: 340, rowHeight, total: 10_000 }), { first: 0, last: 16 });
  assert.deepEqual(inSight({ top: 34_000, height: 340, rowHeight, total: 10_000 }), { first: 994, last: 1016 });
  assert.deepEqual(inSight({ top: 339_660, height: 340, rowHeight, total: 10_000 }), { first: 9984, last: 10_000 });
  assert.deepEqual(inSight({ top: 5000, height: 340, rowHeight, total: 3 }), { first: 3, last: 3 }, "the list became short");
  assert.equal(reveal({ row: 5, top: 0, height: 340, rowHeight }), 0);
  assert.equal(reveal({ row: 20, top: 0, height: 340, rowHeight }), 374);
  assert.equal(reveal({ row: 2, top: 340, height: 340, rowHeight }), 68);
});

test("keys lead through the list and stay in it", () => {
  const at = (key, row, total = 10) => step(key, { row, total, page: 4 });
  assert.deepEqual([at("j", null), at("ArrowDown", 0), at("j", 9)], [0, 1, 9]);
  assert.deepEqual([at("k", null), at("ArrowUp", 5), at("k", 0)], [0, 4, 0]);
  assert.deepEqual([at("PageDown", 8), at("PageUp", 2), at("Home", 7), at("End", 0)], [9, 0, 0, 9]);
  assert.equal(at("x", 3), null);
  assert.equal(at("j", null, 0), null);
});

test("rows are had by pattern, so that looking keeps nothing", () => {
  const wanted = forRows([BTC, BOOK, ETH, topicOf("order:bybit:main")]);
  assert.deepEqual([...wanted.keys()], ["trade:*:BTC-USDT", "book:*:BTC-USDT", "quote:*:ETH-USD", "order:bybit:main"]);
  assert.equal(wanted.get("book:*:BTC-USDT").depth, 1);
});

test("an instrument has all trades, few levels, and one interval", () => {
  const topics = ["trade", "quote", "ticker", "book", "candle_1m", "candle_5m"].map((channel) => topicOf(`${channel}:binance:BTC-USDT`));
  const wanted = forInstrument(topics, { candles: "candle_5m", depth: 15 });
  assert.deepEqual(wanted.get(BTC.name), {});
  assert.deepEqual(wanted.get(BOOK.name), { every_ms: 250, depth: 15 });
  assert.equal(wanted.has("candle_1m:binance:BTC-USDT"), false);
  assert.equal(wanted.has("candle_5m:binance:BTC-USDT"), true);
});

test("only what differs is asked for", () => {
  const had = new Map([["a", { every_ms: 500 }], ["b", { every_ms: 500 }], ["c", {}]]);
  const wanted = new Map([["a", { every_ms: 500 }], ["c", { every_ms: 250 }], ["d", {}]]);
  const { gone, come } = changes(had, wanted);
  assert.deepEqual(gone, ["b", "c"]);
  assert.deepEqual([...come.keys()], ["c", "d"]);
  assert.deepEqual(changes(had, had), { gone: [], come: new Map() });
});

test("candles come in order, once, and bounded", () => {
  const candles = new Candles(3);
  const candle = (minute, close, closed = true) => ({ start: minute * 60e6, open: "1", high: "3", low: "0.5", close, volume: "2", closed });
  for (const minute of [2, 1, 3]) assert.equal(candles.take(candle(minute, "1")), true);
  assert.equal(candles.take(candle(3, "9", false)), false, "an open one is older than the closed one");
  assert.equal(candles.take(candle(4, "2", false)), true);
  assert.equal(candles.take(candle(4, "2.5", false)), true);
  assert.equal(candles.size, 3);
  assert.deepEqual(candles.columns()[0], [120, 180, 240]);
  assert.deepEqual(candles.columns()[4], [1, 1, 2.5]);
  assert.equal(candles.last.close, "2.5");
  assert.equal(candles.take({}), false);
  assert.deepEqual([digits("60000.10"), digits("5"), digits(null)], [2, 0, 0]);
});

test("a book is a ladder with sums", () => {
  const book = { bids: [["10.0", "1"], ["9.5", "3"]], asks: [["10.5", "2"]] };
  const { bids, asks, spread: wide, points } = ladder(book, 15);
  assert.deepEqual(bids.map(({ total: sum, share }) => [sum, share]), [[1, 0.25], [4, 1]]);
  assert.equal(asks[0].share, 0.5);
  assert.equal(wide, "0.5");
  assert.ok(Math.abs(points - 487.8) < 0.1);
  assert.deepEqual(spread(undefined, "1"), { spread: null, points: null });
  assert.deepEqual(ladder({ bids: [], asks: [] }, 15).spread, null);
  assert.equal(total(0.30000000000000004, "0.1"), "0.3");
});

test("a place in the page is an address, and back", () => {
  for (const name of ["trade:binance:BTC-USDT", "trade:x:A/B C%", "trade:x:<b>#?&"]) {
    assert.deepEqual(route.read(route.write(name)), { view: "topic", topic: name });
  }
  assert.equal(route.write(BTC.name), "#/topic/trade:binance:BTC-USDT");
  for (const hash of ["", "#/", "#/else", "#/topic/", "#/topic/%"]) assert.equal(route.read(hash).view, "overview");
});

test("what takes the daemon long is asked seldom", () => {
  const limits = { least: 1000, most: 30_000 };
  assert.deepEqual([5, 100, 5000].map((tookMs) => pause(tookMs, limits)), [1000, 2000, 30_000]);
});

test("memory of curves is bounded, and a count makes a rate", () => {
  const ring = new Ring(3);
  for (const value of [1, 2, 3, 4]) ring.push(value);
  assert.deepEqual(ring.values, [2, 3, 4]);
  const meter = new Meter();
  assert.equal(meter.take(100, 0), null);
  assert.equal(meter.take(150, 1000), 50);
  assert.equal(meter.take(150, 1000), null, "no time went by");
  assert.equal(meter.take(10, 2000), null, "the daemon began anew");
  assert.equal(meter.take(30, 3000), 20);
});

test("a curve ends at the right, and a hole breaks it", () => {
  const box = { length: 5, width: 100, height: 10 };
  const { line } = spark([1, null, 2, 4], box);
  assert.equal(line, "M25 7M75 5L100 1");
  assert.deepEqual(spark([1], box), { line: "", area: "" });
  assert.doesNotMatch(spark([0, 0, 0], box).line, /NaN/);
});

const feeds = (...rows) => ({ feeds: rows.map((row) => ({ state: "live", seq: 1, messages: 1, readers: 0, age_s: 1, last: null, ...row })) });
const says = (seq, price, more = {}) => ({ type: "trade", topic: BTC.name, seq, ts_recv: 2_000_000, data: { price }, ...more });

test("what came over the WebSocket is not undone by an older list", () => {
  const model = new Model();
  model.takeFeeds(feeds({ topic: BTC.name, seq: 5, last: { price: "10" } }), 1000);
  const topic = model.topics.get(BTC.name);
  assert.equal(topic.head.main, "10");
  model.takeMessage(says(7, "12"), new Map());
  model.takeFeeds(feeds({ topic: BTC.name, seq: 6, state: "stale", last: { price: "11" } }), 3000);
  assert.deepEqual([topic.head.main, topic.state, topic.moved, topic.atMs], ["12", "live", "up", 2000]);
  model.takeMessage({ type: "status", topic: BTC.name, seq: 8, data: { state: "down", reason: "why" } }, new Map());
  assert.deepEqual([topic.state, topic.reason, topic.atMs], ["down", "why", 2000]);
});

test("topics that are served no more go", () => {
  const model = new Model();
  model.takeFeeds(feeds({ topic: BTC.name }, { topic: ETH.name }), 0);
  const { generation } = model;
  model.takeFeeds(feeds({ topic: ETH.name }), 0);
  assert.deepEqual([...model.topics.keys()], [ETH.name]);
  assert.ok(model.generation > generation);
});

test("the status is told with a key and without", () => {
  const model = new Model();
  const venues = (total) => ({ binance: { spot: { total_messages: total, healthy: true, active_connections: 1, latency: { venue_ms: { p50: 2, p99: 3 } } } } });
  model.takeStatus({ version: "1", ready: true, reasons: [], venues: venues(10), clients: { frames: 0 }, topics: { states: { live: 3 } } }, 0);
  model.takeStatus({ version: "1", ready: true, reasons: [], venues: venues(30), clients: { frames: 50 }, topics: { states: { live: 3 } } }, 2000);
  assert.deepEqual([model.rates.last, model.frameRate, model.states().live], [10, 25, 3]);
  assert.deepEqual(model.markets.get("binance spot").latencies.values, [2, 2]);
  model.takeStatus({ status: "not ready", reasons: ["standby"], venues: {} }, 3000);
  assert.deepEqual([model.status, model.ready, model.reasons, model.markets.size], [null, false, ["standby"], 0]);
});
