// Run with `node --test` in this folder: feed.mjs against a socket that says what the test wants.
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { Book, PricefeedClient } from "./feed.mjs";

const TRADES = "trade:binance:BTC-USDT";
const BOOK = "book:binance:BTC-USDT";
const QUOTES = "quote:binance:BTC-USDT";

class FakeSocket extends EventTarget {
  static all = [];
  sent = [];
  closed = false;

  constructor(url) {
    super();
    this.url = url;
    FakeSocket.all.push(this);
  }

  static get last() {
    return FakeSocket.all.at(-1);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
  }

  says(message) {
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(message) }));
  }

  welcomes(epoch = "a") {
    this.says({ type: "welcome", protocol: 1, epoch, heartbeat_s: 15, limits: {} });
  }

  ends(code = 1006, reason = "") {
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }
}

let client;
let told;

/** Make a client that wants topics, and connect it. Every wait between connections is the longest. */
function connected(topics, options) {
  client = new PricefeedClient("ws://test/ws", { WebSocket: FakeSocket, random: () => 1 });
  for (const type of ["data", "missed", "conflated", "refused", "connected", "disconnected", "ended"]) {
    client.addEventListener(type, ({ detail }) => told.push([type, detail]));
  }
  client.subscribe(topics, options);
  client.connect();
  FakeSocket.last.welcomes();
}

const of = (type) => told.filter(([kind]) => kind === type).map(([, detail]) => detail);
const trade = (seq, more = {}) => FakeSocket.last.says({ type: "trade", topic: TRADES, seq, data: { price: "1" }, ...more });
const status = (topic, seq, state = "live") => FakeSocket.last.says({ type: "status", topic, seq, data: { state } });
const quote = (seq) => FakeSocket.last.says({ type: "quote", topic: QUOTES, seq, data: {} });
const book = (seq, kind, bids, asks, more = {}) =>
  FakeSocket.last.says({ type: "book", topic: BOOK, seq, data: { kind, bids, asks }, ...more });
const gaps = () => of("missed").map(({ topic, from, to }) => [topic, from, to]);

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  FakeSocket.all = [];
  told = [];
});

afterEach(() => {
  client?.close();
  mock.timers.reset();
});

test("a jump of the numbers is a loss, and is told before the message", () => {
  connected([TRADES]);
  for (const seq of [7, 8, 11]) trade(seq);
  assert.deepEqual(told.slice(1).map(([type, detail]) => [type, detail.seq ?? [detail.from, detail.to]]), [
    ["data", 7], ["data", 8], ["missed", [9, 10]], ["data", 11],
  ]);
});

test("what is known already does not come twice", () => {
  connected([TRADES]);
  for (const seq of [7, 8, 8, 7, 9]) trade(seq);
  assert.deepEqual(of("data").map(({ seq }) => seq), [7, 8, 9]);
  assert.deepEqual(gaps(), []);
});

test("how things stand at the beginning comes with numbers that jump", () => {
  connected([TRADES]);
  status(TRADES, 3, "stale");
  trade(7);
  trade(8);
  trade(10);
  assert.deepEqual(gaps(), [[TRADES, 9, 9]]);
});

test("states that were passed over with a word are not missed, even if the word comes behind a status", () => {
  connected([QUOTES]);
  for (const seq of [1, 2, 3]) quote(seq);
  status(QUOTES, 6, "stale");
  FakeSocket.last.says({ type: "conflated", topic: QUOTES, seq: 9, data: { dropped: 4 } });
  quote(9);
  assert.deepEqual(gaps(), []);
  assert.deepEqual(of("conflated"), [{ topic: QUOTES, dropped: 4 }]);
  quote(11);
  assert.deepEqual(gaps(), [[QUOTES, 10, 10]]);
});

test("numbers that are passed over on purpose say what they follow", () => {
  connected([TRADES], { every_ms: 100 });
  trade(1);
  trade(5, { prev_seq: 1 });
  trade(9, { prev_seq: 7 });
  assert.deepEqual(gaps(), [[TRADES, 6, 7]]);
});

test("a heartbeat that is ahead proves a loss", () => {
  connected([TRADES]);
  trade(4);
  FakeSocket.last.says({ type: "heartbeat", ts: 0, seq: { [TRADES]: 4 } });
  assert.deepEqual(gaps(), []);
  FakeSocket.last.says({ type: "heartbeat", ts: 0, seq: { [TRADES]: 6 } });
  assert.deepEqual(gaps(), [[TRADES, 5, 6]]);
  trade(7);
  assert.equal(of("missed").length, 1);
});

test("a loss that the daemon tells is told once", () => {
  connected([TRADES]);
  trade(4);
  FakeSocket.last.says({ type: "gap", topic: TRADES, seq: 8, data: { reason: "slow reader", from_seq: 5, to_seq: 8, missing: 4 } });
  trade(9);
  assert.deepEqual(gaps(), [[TRADES, 5, 8]]);
  assert.equal(of("missed")[0].reason, "slow reader");
});

test("a book is built from a snapshot and deltas", () => {
  connected([BOOK]);
  book(1, "delta", [["9", "9"]], []);
  assert.equal(client.books.get(BOOK), undefined, "there is none before a snapshot");
  book(2, "snapshot", [["9", "1"], ["10", "2"]], [["11.0", "3"], ["12", "4"]]);
  book(3, "delta", [["10", "0"], ["8", "5"]], [["11.00", "0.5"]]);
  assert.deepEqual(client.books.get(BOOK).best(5), { bids: [["9", "1"], ["8", "5"]], asks: [["11.00", "0.5"], ["12", "4"]] });
  book(3, "snapshot", [["1", "1"]], []);
  assert.deepEqual(client.books.get(BOOK).best(5), { bids: [["1", "1"]], asks: [] });
});

test("levels are sorted as numbers", () => {
  const made = new Book();
  made.apply({ kind: "snapshot", bids: [["9", "1"], ["10", "1"]], asks: [["100", "1"], ["20", "1"]] });
  assert.deepEqual(made.best(1), { bids: [["10", "1"]], asks: [["20", "1"]] });
});

test("there is no book while the venue's side is broken", () => {
  connected([BOOK]);
  book(1, "snapshot", [], [["2", "1"]]);
  status(BOOK, 2, "resyncing");
  assert.equal(client.books.size, 0);
  book(3, "delta", [], [["2", "0"]]);
  assert.equal(client.books.size, 0);
  book(4, "snapshot", [], [["3", "1"]]);
  assert.equal(client.books.size, 1);
});

test("a book that lost an update is believed no more, and comes anew", () => {
  connected([BOOK]);
  const first = FakeSocket.last;
  book(1, "snapshot", [], [["2", "1"]]);
  book(3, "delta", [], [["2", "0"]]);
  assert.deepEqual(gaps(), [[BOOK, 2, 2]]);
  assert.equal(client.books.size, 0);
  assert.equal(first.closed, true);
  assert.equal(of("data").length, 1, "the delta means nothing");
  mock.timers.tick(500);
  FakeSocket.last.welcomes();
  book(5, "snapshot", [], [["3", "1"]]);
  assert.equal(client.books.size, 1);
  assert.equal(of("missed").length, 1);
});

test("after a cut it asks for what came since, and nothing is missed", () => {
  connected([TRADES, "trade:*:*"]);
  assert.deepEqual(FakeSocket.last.sent, [{ op: "subscribe", id: 1, topics: [TRADES, "trade:*:*"] }]);
  trade(7);
  trade(8);
  FakeSocket.last.says({ type: "trade", topic: "trade:okx:BTC-USDT", seq: 70, data: {} });
  FakeSocket.last.ends();
  assert.deepEqual(of("disconnected"), [{ code: 1006, reason: "the connection ended", retryMs: 500 }]);
  mock.timers.tick(500);
  FakeSocket.last.welcomes();
  const asked = FakeSocket.last.sent.map(({ op, topics, since }) => [op, topics, since?.epoch, since?.seq]);
  assert.deepEqual(asked, [
    ["subscribe", [TRADES, "trade:okx:BTC-USDT"], "a", { [TRADES]: 8, "trade:okx:BTC-USDT": 70 }],
    ["subscribe", [TRADES, "trade:*:*"], undefined, undefined],
    ["unsubscribe", ["trade:okx:BTC-USDT"], undefined, undefined],
  ]);
  for (const seq of [9, 10]) trade(seq);
  assert.deepEqual(gaps(), []);
  assert.deepEqual(of("data").map(({ seq }) => seq), [7, 8, 70, 9, 10]);
});

test("many topics are asked for in several requests", () => {
  connected(["trade:*:*"]);
  for (let i = 0; i < 450; i++) {
    FakeSocket.last.says({ type: "trade", topic: `trade:binance:X${i}-USDT`, seq: 1, data: {} });
  }
  FakeSocket.last.ends();
  mock.timers.tick(500);
  FakeSocket.last.welcomes();
  const sizes = FakeSocket.last.sent.map(({ op, topics }) => [op, topics.length]);
  assert.deepEqual(sizes, [
    ["subscribe", 200], ["subscribe", 200], ["subscribe", 50], ["subscribe", 1],
    ["unsubscribe", 200], ["unsubscribe", 200], ["unsubscribe", 50],
  ]);
  assert.ok(FakeSocket.last.sent.every((request) => JSON.stringify(request).length < 65_536));
});

test("a daemon that began anew is told, and its numbers start again", () => {
  connected([TRADES]);
  trade(700);
  FakeSocket.last.ends();
  mock.timers.tick(500);
  FakeSocket.last.welcomes("b");
  assert.deepEqual(gaps(), [[TRADES, 701, null]]);
  assert.deepEqual(FakeSocket.last.sent, [{ op: "subscribe", id: 2, topics: [TRADES] }]);
  trade(1);
  trade(2);
  assert.equal(of("missed").length, 1);
  assert.equal(of("data").length, 3);
});

test("waits double, and only data sets them back", () => {
  connected([TRADES]);
  const wait = () => of("disconnected").at(-1).retryMs;
  for (const expected of [500, 1000, 2000]) {
    FakeSocket.last.ends();
    assert.equal(wait(), expected);
    mock.timers.tick(expected);
    FakeSocket.last.welcomes();
  }
  trade(1);
  FakeSocket.last.ends();
  assert.equal(wait(), 500);
});

test("`bye` is obeyed", () => {
  connected([TRADES]);
  FakeSocket.last.says({ type: "bye", code: 4001, reason: "stopping", retry_after_ms: 3000 });
  FakeSocket.last.ends(4001, "stopping");
  assert.deepEqual(of("disconnected"), [{ code: 4001, reason: "stopping", retryMs: 3500 }]);
  mock.timers.tick(3500);
  FakeSocket.last.says({ type: "bye", code: 4501, reason: "a key is needed", retry_after_ms: null });
  FakeSocket.last.ends(4501, "a key is needed");
  assert.deepEqual(of("ended"), [{ code: 4501, reason: "a key is needed" }]);
  mock.timers.tick(100_000);
  assert.equal(FakeSocket.all.length, 2);
});

test("a connection on which nothing comes is given up", () => {
  connected([TRADES]);
  const first = FakeSocket.last;
  mock.timers.tick(20_000);
  trade(1);
  mock.timers.tick(30_900);
  assert.deepEqual(of("disconnected"), []);
  mock.timers.tick(31_000);
  assert.match(of("disconnected")[0].reason, /nothing came for 31 s/);
  first.says({ type: "trade", topic: TRADES, seq: 2, data: {} });
  first.ends();
  assert.equal(of("data").length, 1, "what it says later counts no more");
  assert.equal(of("disconnected").length, 1);
});

test("a server that speaks something else is left alone", () => {
  connected([TRADES]);
  FakeSocket.last.dispatchEvent(new MessageEvent("message", { data: "<html>" }));
  assert.match(of("disconnected")[0].reason, /not JSON/);
  assert.equal(FakeSocket.last.closed, true);
});

test("a symbol of the venue is known by our name afterwards", () => {
  connected(["trade:binance:BTCUSDT", "trade:binance:NO"]);
  const error = { code: "unknown_instrument", message: "unknown", did_you_mean: ["BTC-USDT"] };
  FakeSocket.last.says({
    type: "ack",
    id: 1,
    op: "subscribe",
    results: [
      { topic: "trade:binance:BTCUSDT", ok: true, matched: 1, as: TRADES },
      { topic: "trade:binance:NO", ok: false, error },
    ],
  });
  trade(1);
  assert.equal(of("data").length, 1);
  assert.deepEqual(of("refused"), [{ topic: "trade:binance:NO", ...error }]);
  client.unsubscribe(["trade:binance:BTCUSDT"]);
  assert.deepEqual(FakeSocket.last.sent.at(-1), { op: "unsubscribe", id: 2, topics: [TRADES] });
  trade(2);
  assert.equal(of("data").length, 1, "it was on its way when it was unsubscribed");
});

test("several messages in one frame are taken one by one", () => {
  connected([TRADES]);
  FakeSocket.last.says([1, 2, 3].map((seq) => ({ type: "trade", topic: TRADES, seq, data: {} })));
  assert.deepEqual(of("data").map(({ seq }) => seq), [1, 2, 3]);
});

test("after close nothing more comes, from a handler too", () => {
  connected([TRADES]);
  client.addEventListener("data", () => client.close());
  FakeSocket.last.says([1, 2].map((seq) => ({ type: "trade", topic: TRADES, seq, data: {} })));
  assert.equal(of("data").length, 1);
  mock.timers.tick(100_000);
  assert.equal(FakeSocket.all.length, 1);
});
