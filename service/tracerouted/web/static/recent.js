// The traces started or opened in this browser, newest first, kept in its local storage.

import { byId, element, put } from "./dom.js";
import { asked, plain } from "./words.js";

const KEY = "tracerouted.recent";
const MOST = 12;
const STATES = { reached: "reached", unreachable: "blocked", gap_limit: "silent", max_ttl: "not reached", deadline: "not reached", loop: "loop", error: "failed" };

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((entry) => typeof entry?.id === "string" && typeof entry?.request?.target === "string") : [];
  } catch {
    return [];
  }
}

function save(entries) {
  try {
    localStorage.setItem(KEY, JSON.stringify(entries));
  } catch { /* without storage there is no list */ }
}

/** Put a trace on top of the list, or bring its entry up to date. */
export function remember({ id, request, created_at, expires_at, stop_reason, status }) {
  const entries = load();
  const entry = { id, request, created_at, expires_at, state: STATES[stop_reason] ?? status };
  const at = entries.findIndex((other) => other.id === id);
  if (at >= 0) entries[at] = entry;
  else entries.unshift(entry);
  save(entries.slice(0, MOST));
}

/** What is remembered of a trace, or undefined. */
export const recall = (id) => load().find((entry) => entry.id === id);

/** Note that the service does not have this trace any more. */
export function markGone(id) {
  save(load().map((entry) => (entry.id === id ? { ...entry, gone: true } : entry)));
}

/** Draw the list; `address` makes the permalink of an id, `current` is the id shown. */
export function showRecent(address, current) {
  const entries = load();
  put(byId("recent"), "hidden", !entries.length);
  const now = Date.now();
  byId("recent-list").replaceChildren(...entries.map((entry) => {
    // One that was left while it ran has ended by now; how is not known here.
    const ended = now - Date.parse(entry.created_at) > (entry.request.deadline_ms ?? 0) + 60_000;
    const state = ended && ["queued", "running"].includes(entry.state) ? "ended" : entry.state;
    const gone = entry.gone || (entry.expires_at && Date.parse(entry.expires_at) <= now);
    const at = new Date(entry.created_at);
    return element("li", { class: gone ? "gone" : null },
      element("a", { href: address(entry.id), "data-trace": entry.id, "aria-current": entry.id === current ? "page" : null },
        element("bdi", {}, plain(entry.request.target))),
      element("span", { class: "what" }, asked(entry.request)),
      element("span", { class: "state" }, gone ? "expired" : state),
      element("time", { datetime: entry.created_at }, Number.isNaN(at.getTime()) ? "" : at.toLocaleString(undefined, { dateStyle: "short", timeStyle: "short" })));
  }));
}

/** Empty the list. */
export function forgetAll() {
  save([]);
}
