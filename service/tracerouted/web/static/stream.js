// A trace's server-sent events, over fetch: an API key can be sent, a refusal can be read, and a lost connection is
// resumed after the last event seen. (EventSource does none but the last.)

import { Problem, ask } from "./api.js";

const SILENCE_MS = 45000; // three of the service's heartbeats
const FIRST_WAIT_MS = 500;
const MOST_WAIT_MS = 15000;

/** Reads the wire format (WHATWG HTML, 9.2.6) piece by piece; lines may end in CR, LF or both. */
export class EventReader {
  #rest = "";
  #event = { id: null, name: "", data: [] };

  /** The events completed by `text`: [{id, name, data}] with data as text. */
  take(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        const { id, name, data } = this.#event;
        if (data.length) events.push({ id, name: name || "message", data: data.join("\n") });
        this.#event = { id, name: "", data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
      if (field === "data") this.#event.data.push(value);
      else if (field === "event") this.#event.name = value;
      else if (field === "id") this.#event.id = value;
    }
    return events;
  }
}

/**
 * The events of a trace past revision `after`, in batches: [{id, name, data}], each exactly once and in order.
 *
 * Ends after the `end` event. `onLink(lost)` is told when the connection is lost and when it is back. Throws `Problem`
 * for what waiting does not mend (the trace is gone, a key is wanted).
 */
export async function* follow(id, after, signal, onLink) {
  let seen = after;
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    let pause = null;
    try {
      for await (const batch of connection(id, seen, signal, () => onLink(false))) {
        if (batch === null) return;
        const fresh = batch.filter((event) => event.id > seen);
        if (!fresh.length) continue;
        seen = fresh.at(-1).id;
        wait = FIRST_WAIT_MS;
        yield fresh;
        if (fresh.at(-1).name === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const passing = !(error instanceof Problem) || error.status === 0 || error.status === 429 || error.status >= 500;
      if (!passing) throw error;
      pause = error.retryAfter ? error.retryAfter * 1000 : null;
    }
    if (signal.aborted) return;
    onLink(true);
    await rest(pause ?? wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(wait * 2, MOST_WAIT_MS);
  }
}

/** The batches of one connection; null when the service has nothing more to tell (204). */
async function* connection(id, seen, signal, onOpen) {
  const silence = new AbortController();
  let timer = null;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    heard();
    const headers = { Accept: "text/event-stream", "Last-Event-ID": String(seen) };
    const both = AbortSignal.any([signal, silence.signal]);
    const answer = await ask(`traces/${encodeURIComponent(id)}/events`, { headers, signal: both, cache: "no-store" });
    onOpen();
    if (answer.status === 204) {
      yield null;
      return;
    }
    const text = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const reader = new EventReader();
    for (;;) {
      const { done, value } = await text.read();
      if (done) return;
      heard();
      const events = reader.take(value).map(({ id, name, data }) => ({ id: Number(id), name, data: JSON.parse(data) }));
      if (events.length) yield events;
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

/** Wait, but no longer once the device is online again or the trace is left. */
function rest(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
