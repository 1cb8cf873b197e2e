// Requests to the service, relative to the page, and its problem documents as exceptions.

const KEY = "tracerouted.key";

/** A refusal: `status` (0 when no answer came), the problem's `type` name, `detail`, `errors`, `retryAfter` in s or null. */
export class Problem extends Error {
  constructor(status, document, retryAfter = null) {
    super(document.detail ?? document.title ?? `The service answered ${status}.`);
    this.status = status;
    this.type = String(document.type ?? "").replace(/^.*\//, "");
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    this.retryAfter = retryAfter;
  }
}

/** Remember an API key for this tab; "" forgets it. */
export function useKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch { /* without storage the key must be typed again after a reload */ }
  memory = key;
}

let memory = null;

/** The API key of this tab, or "". */
export function key() {
  if (memory === null) {
    try {
      memory = sessionStorage.getItem(KEY) ?? "";
    } catch {
      memory = "";
    }
  }
  return memory;
}

/** fetch() of a path below the page's own; throws `Problem` for every answer that is not a success. */
export async function ask(path, { headers = {}, ...options } = {}) {
  const sent = key() ? { ...headers, Authorization: `Bearer ${key()}` } : headers;
  let answer;
  try {
    answer = await fetch(new URL(path, document.baseURI), { ...options, headers: sent, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const offline = navigator.onLine === false;
    throw new Problem(0, { detail: offline ? "This device is offline." : "The service does not answer." });
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch { /* something in between answered, not the service */ }
  throw new Problem(answer.status, problem, seconds(answer.headers.get("Retry-After")));
}

function seconds(retryAfter) {
  if (retryAfter === null) return null;
  const number = Number(retryAfter);
  if (Number.isFinite(number)) return Math.max(1, Math.ceil(number));
  const at = Date.parse(retryAfter);
  return Number.isNaN(at) ? null : Math.max(1, Math.ceil((at - Date.now()) / 1000));
}

// A request whose answer was lost, and the key it was sent under: sent again under it, it starts no second trace.
let unanswered = null;

/** Start a trace; the trace as the service answers it. */
export async function create(request) {
  const body = JSON.stringify(request);
  const once = unanswered?.body === body ? unanswered.once : randomKey();
  const headers = { "Content-Type": "application/json", "Idempotency-Key": `"${once}"` };
  unanswered = { body, once };
  try {
    const made = await (await ask("traces", { method: "POST", headers, body })).json();
    unanswered = null;
    return made;
  } catch (error) {
    if (!(error instanceof Problem)) throw new Problem(0, { detail: "The service's answer was cut off." });
    if (error.status) unanswered = null;
    throw error;
  }
}

const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** A trace as it stands. */
export async function read(id, signal) {
  const headers = { Accept: "application/json" };
  return (await ask(`traces/${encodeURIComponent(id)}`, { headers, signal })).json();
}

/** Cancel a trace; the service forgets it. */
export async function cancel(id) {
  await ask(`traces/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** Which families can be traced with which protocols, as `/readyz` says; null when that cannot be learnt. */
export async function readiness() {
  try {
    const answer = await fetch(new URL("readyz", document.baseURI));
    return { ready: answer.ok, ...(await answer.json()) };
  } catch {
    return null;
  }
}
