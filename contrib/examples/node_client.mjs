#!/usr/bin/env node
/**
 * Prints topics of pricefeedd.
 *
 *   node node_client.mjs ws://127.0.0.1:8765/ws 'trade:*:*' book:binance:BTC-USDT --limit 20 [--json]
 *
 * Data goes to stdout and everything else to stderr. Exit codes: 0, 1 the daemon refused, 2 usage.
 */
import { parseArgs } from "node:util";
import { PricefeedClient } from "./feed.mjs";

const USAGE = "usage: node node_client.mjs URL TOPIC... [--limit N] [--json]";

/** Return the class WebSocket: Node has it since version 22, and npm's `ws` does for older ones. */
async function webSocket() {
  if (globalThis.WebSocket !== undefined) return globalThis.WebSocket;
  try {
    return (await import("ws")).default;
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new Error(
      `Node ${process.versions.node} has no WebSocket of its own: use Node 22 or newer, or run \`npm install ws\` here`,
    );
  }
}

function say(text) {
  process.stderr.write(`${text}\n`);
}

/** End once all is written: to a pipe that happens later, and `process.exit` would cut it off. */
function end(client, code) {
  client.close();
  process.exitCode = code;
}

/** Return a line for a person. */
function show(client, { type, topic, seq, data }) {
  let said;
  if (type === "book") {
    const { bids, asks } = client.books.get(topic)?.best(1) ?? { bids: [], asks: [] };
    const level = ([price, size]) => `${size} @ ${price}`;
    said = `bid ${bids.map(level)} ask ${asks.map(level)}`;
  } else {
    const told = Object.entries(data).filter(([, value]) => value !== null);
    said = told.map(([key, value]) => `${key}=${value}`).join(" ");
  }
  return `${topic} #${seq} ${type} ${said}`;
}

function readArguments() {
  try {
    const options = { limit: { type: "string" }, json: { type: "boolean", default: false } };
    const { values, positionals } = parseArgs({ options, allowPositionals: true });
    const [url, ...topics] = positionals;
    const limit = values.limit === undefined ? Infinity : Number(values.limit);
    if (topics.length === 0) throw new Error("give an address and topics");
    if (!(limit >= 1)) throw new Error("--limit is a number from 1");
    return { url, topics, limit, json: values.json };
  } catch (error) {
    say(`${error.message}\n${USAGE}`);
    process.exit(2);
  }
}

async function main() {
  const { url, topics, limit, json } = readArguments();
  const address = new URL(url);
  // From the environment: arguments can be read by everybody on the machine.
  if (process.env.PRICEFEEDD_API_KEY) address.searchParams.set("api_key", process.env.PRICEFEEDD_API_KEY);
  const client = new PricefeedClient(address.href, { WebSocket: await webSocket() });
  let count = 0;
  const refused = new Set();

  client.addEventListener("data", ({ detail }) => {
    process.stdout.write(`${json ? JSON.stringify(detail) : show(client, detail)}\n`);
    count += 1;
    if (count >= limit) end(client, 0);
  });
  client.addEventListener("missed", ({ detail: { topic, from, to, reason } }) => {
    say(`${topic}: missed #${from} to #${to ?? "?"}: ${reason}`);
  });
  client.addEventListener("conflated", ({ detail: { topic, dropped } }) => {
    say(`${topic}: ${dropped} older states were passed over, we are slow`);
  });
  client.addEventListener("disconnected", ({ detail: { code, reason, retryMs } }) => {
    say(`${code} ${reason}; trying again in ${(retryMs / 1000).toFixed(1)} s`);
  });
  client.addEventListener("refused", ({ detail: { topic, message, did_you_mean: near } }) => {
    say(`${topic ?? "request"}: ${message}${near?.length ? `; did you mean ${near.join(", ")}?` : ""}`);
    refused.add(topic);
    if (topics.every((wanted) => refused.has(wanted))) end(client, 1);
  });
  client.addEventListener("ended", ({ detail: { code, reason } }) => {
    say(`the daemon does not want us: ${code} ${reason}`);
    end(client, 1);
  });

  // `| head` had enough. Not an error, and not worth a stack trace.
  process.stdout.on("error", (error) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(0);
  });
  process.once("SIGINT", () => end(client, 130));

  client.subscribe(topics);
  client.connect();
}

main().catch((error) => {
  say(error.message);
  process.exitCode = 1;
});
