"use strict";

// Requests with a token, and events of one asset. EventSource can send no token, so events are read from an ordinary answer.

const TOKEN = "ofa-token";

// The service sends a ping every 15 seconds; after three that stay away the connection is taken for broken.
const SILENCE_MS = 45000;

// Until the service has said when to come back, and after an answer that is no stream.
const RETRY_MS = 2000;

// The token stays with this tab and is gone with it.
function headers(more) {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { ...more, authorization: `Bearer ${token}` } : { ...more };
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function refusal(answer) {
  const body = await answer.json().catch(() => ({}));
  return new Refused(answer.status, body.detail || answer.statusText);
}

async function fetchJson(path) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

// Splits text as it comes into events: field name to value, data lines joined.
class EventParser {
  rest = "";

  push(text) {
    const blocks = (this.rest + text).replace(/\r\n?/g, "\n").split("\n\n");
    this.rest = blocks.pop();
    return blocks.map((block) => EventParser.parse(block));
  }

  static parse(block) {
    const event = { type: "message", data: [] };
    for (const line of block.split("\n")) {
      const at = line.indexOf(":");
      if (at === 0) continue;
      const name = at < 0 ? line : line.slice(0, at);
      const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
      if (name === "event") event.type = value;
      else if (name === "data") event.data.push(value);
      else if (name === "id") event.id = value;
      else if (name === "retry" && /^\d+$/.test(value)) event.retry = Number(value);
    }
    return { ...event, data: event.data.join("\n") };
  }
}

// A stream that comes back by itself with the last id it has seen, until it is closed.
class AssetStream {
  state = "connecting";
  #lastId = "";
  #retry = RETRY_MS;
  #closed = new AbortController();

  constructor(path, { onEvent, onState }) {
    this.path = path;
    this.onEvent = onEvent;
    this.onState = onState;
    this.#run();
  }

  close() {
    this.#closed.abort();
  }

  async #run() {
    while (!this.#closed.signal.aborted) {
      try {
        await this.#read();
        this.#is("reconnecting");
      } catch (error) {
        if (this.#closed.signal.aborted) return;
        this.#is("reconnecting", error);
      }
      await new Promise((resume) => setTimeout(resume, this.#retry));
    }
  }

  async #read() {
    const attempt = new AbortController();
    const abort = () => attempt.abort();
    this.#closed.signal.addEventListener("abort", abort);
    let silence = setTimeout(abort, SILENCE_MS);
    try {
      const more = this.#lastId ? { "last-event-id": this.#lastId } : {};
      const answer = await fetch(this.path, { headers: headers(more), signal: attempt.signal });
      if (!answer.ok) throw await refusal(answer);
      this.#is("live");
      const parser = new EventParser();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(abort, SILENCE_MS);
        for (const event of parser.push(value)) this.#take(event);
      }
    } finally {
      clearTimeout(silence);
      this.#closed.signal.removeEventListener("abort", abort);
    }
  }

  #take(event) {
    if (event.id !== undefined) this.#lastId = event.id;
    if (event.retry !== undefined) this.#retry = event.retry;
    if (event.data) this.onEvent(event);
  }

  #is(state, error) {
    this.state = state;
    this.onState(error);
  }
}
