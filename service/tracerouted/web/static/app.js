// The looking glass put together: the address of the page says which trace is shown, the form starts new ones.
//
// A permalink is the page's own address with `?trace=ID`: it needs no routing at the service, and unlike a fragment
// it survives logins and redirects on the way.

import { Problem, cancel, create, read, readiness } from "./api.js";
import { byId, put } from "./dom.js";
import { clearProblems, fillForm, offerProtocols, openForm, showProblem } from "./form.js";
import { forgetAll, markGone, recall, remember, showRecent } from "./recent.js";
import { Result } from "./result.js";
import { follow } from "./stream.js";
import { Trace } from "./trace.js";

const permalink = (id) => {
  const address = new URL(document.baseURI);
  address.search = `?trace=${encodeURIComponent(id)}`;
  address.hash = "";
  return address.href;
};
const touched = () => matchMedia("(hover: none)").matches;
const asked = () => new URLSearchParams(location.search).get("trace");

const result = new Result(permalink, { cancel: cancelTrace, again: startAgain });
let leave = new AbortController(); // aborts whatever the trace shown before still does

async function start(request) {
  const made = await create(request);
  if (touched()) byId("target").blur(); // the keyboard would cover the answer
  history.pushState(null, "", permalink(made.id));
  await show(new Trace(made), true);
}

function startAgain(request) {
  fillForm(request);
  byId("form").requestSubmit();
}

/** Show what the page's address names. */
async function route() {
  const id = asked();
  leave.abort();
  clearProblems();
  if (id === null) {
    result.close();
    put(byId("empty"), "hidden", false);
    showRecent(permalink, null);
    if (!touched()) byId("target").focus();
    return;
  }
  const left = (leave = new AbortController()).signal;
  put(byId("empty"), "hidden", true);
  try {
    const trace = new Trace(await read(id, left));
    if (left.aborted) return;
    fillForm(trace.head.request);
    await show(trace, false);
  } catch (error) {
    if (!left.aborted) fail(error, id);
  }
}

/** Show a trace and follow it to its end. Returns once it is followed, for one that was just started. */
async function show(trace, started) {
  leave.abort();
  const left = (leave = new AbortController()).signal;
  put(byId("empty"), "hidden", true);
  note(trace);
  result.open(trace);
  if (trace.over) return;
  const followed = watch(trace, left).catch((error) => {
    if (!left.aborted) fail(error, trace.id);
  });
  if (!started) await followed;
}

async function watch(trace, left) {
  for await (const events of follow(trace.id, trace.head.revision, left, (lost) => result.link(lost && !left.aborted))) {
    if (left.aborted) return;
    for (const event of events) trace.apply(event);
    result.refresh();
  }
  if (left.aborted) return;
  if (!trace.over) trace.load(await read(trace.id, left)); // the service says it has told everything
  result.refresh();
  note(trace);
  if (trace.head.status === "failed" && trace.head.target === null && trace.head.error) {
    showProblem(new Problem(422, { detail: trace.head.error, errors: [{ pointer: "/target", detail: trace.head.error }] }));
  }
}

function note(trace) {
  if (trace.head.status === "cancelled") markGone(trace.id);
  else remember(trace.head);
  showRecent(permalink, trace.id);
}

/** Say why a trace cannot be shown. */
function fail(error, id) {
  if (!(error instanceof Problem)) throw error;
  if (error.status !== 404) {
    showProblem(error);
    return;
  }
  const known = recall(id);
  markGone(id);
  showRecent(permalink, id);
  if (known) fillForm(known.request);
  result.explain("This trace has expired", `${sentence(error.message)} Traces are kept for a limited time only.`, known?.request);
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

async function cancelTrace(trace) {
  try {
    await cancel(trace.id);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.status !== 404) showProblem(error);
  }
}

openForm(start);
byId("forget").addEventListener("click", () => {
  forgetAll();
  showRecent(permalink, asked());
  byId("target").focus();
});
byId("recent-list").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  route();
});
addEventListener("popstate", route);
addEventListener("storage", () => showRecent(permalink, asked()));
readiness().then((known) => known && offerProtocols(known));
route();
