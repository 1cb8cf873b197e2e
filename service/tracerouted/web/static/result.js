// The result: how the trace stands in words, what can be done with it, its hops and its paths.

import { byId, element, put, say } from "./dom.js";
import { PathGraph } from "./graph.js";
import { HopTable } from "./hops.js";
import { report } from "./report.js";
import { asked, count, duration, plain, verdict } from "./words.js";

const SPEAK_MS = 5000;

/** `permalink(id)` makes an absolute address; `actions` are {cancel, again}. */
export class Result {
  #table = new HopTable();
  #graph = new PathGraph();
  #trace = null;
  #frame = null;
  #rest = 0;
  #spoken = 0;
  #lost = false;

  constructor(permalink, actions) {
    this.#permalink = permalink;
    this.#target = element("h2", { class: "target" });
    this.#title = element("strong", { class: "title" });
    this.#text = element("span", { class: "text" });
    this.#facts = element("p", { class: "facts" });
    this.#link = element("p", { class: "link-lost", hidden: true }, "Connection lost; resuming\u2026");
    this.#cancel = button("Cancel", "cancel", () => actions.cancel(this.#trace));
    this.#again = button("Trace again", "again", () => actions.again(this.#request));
    this.#copies = element("span", { class: "copies" },
      element("span", { class: "label", id: "copy-label" }, "Copy"),
      button("Text", "copy-text", () => this.#copy("Text", report(this.#trace, this.#permalinkNow()))),
      button("JSON", "copy-json", () => this.#copy("JSON", `${JSON.stringify(this.#trace.document, null, 2)}\n`)),
      button("Link", "copy-link", () => this.#copy("Link", this.#permalinkNow())));
    put(this.#copies, "role", "group");
    put(this.#copies, "aria-labelledby", "copy-label");
    this.#verdict = element("p", { class: "verdict" }, this.#title, " ", this.#text);
    this.#body = element("div", { class: "body" }, this.#table.node, this.#graph.node);
    byId("result").replaceChildren(
      element("div", { class: "head" }, this.#target, element("div", { class: "actions" }, this.#cancel, this.#again, this.#copies)),
      this.#verdict, element("div", { class: "line" }, this.#facts, this.#link), this.#body);
  }

  #permalink;
  #target;
  #title;
  #text;
  #facts;
  #link;
  #cancel;
  #again;
  #copies;
  #verdict;
  #body;
  #request = null;

  /** Show a trace from here on. */
  open(trace) {
    this.#trace = trace;
    this.#request = trace.head.request;
    this.#spoken = performance.now();
    this.#table.clear();
    this.#graph.clear();
    put(byId("result"), "hidden", false);
    put(this.#body, "hidden", false);
    this.link(false);
    speak(`Tracing ${plain(trace.head.request.target)}.`, trace.over);
    this.#draw();
  }

  /** Show why there is nothing to show. `request` is what was asked, if that is known. */
  explain(title, text, request) {
    this.#trace = null;
    this.#request = request ?? null;
    cancelAnimationFrame(this.#frame);
    this.#frame = null;
    put(byId("result"), "hidden", false);
    put(this.#body, "hidden", true);
    put(this.#cancel, "hidden", true);
    put(this.#copies, "hidden", true);
    put(this.#again, "hidden", !request);
    say(this.#target, request ? plain(request.target) : "Trace");
    put(this.#verdict, "data-tone", "quiet");
    say(this.#title, title);
    say(this.#text, text);
    say(this.#facts, request ? asked(request) : "");
    this.link(false);
    document.title = `${title} \u2013 Looking glass`;
    say(byId("announce"), `${title}. ${text}`);
  }

  close() {
    this.#trace = null;
    put(byId("result"), "hidden", true);
    document.title = "Looking glass";
  }

  /** Say whether the connection is lost. */
  link(lost) {
    put(this.#link, "hidden", !lost);
    if (lost && !this.#lost) say(byId("announce"), "Connection lost, resuming.");
    this.#lost = lost;
  }

  /** The trace has changed: draw soon, and no more often than drawing it is cheap. */
  refresh() {
    if (this.#trace.over) this.#entitle();
    if (this.#frame !== null) return;
    this.#frame = 0;
    const wait = this.#rest - performance.now();
    const ask = () => {
      if (this.#frame !== null) this.#frame = requestAnimationFrame(() => this.#draw());
    };
    if (wait > 0 && !this.#trace.over) setTimeout(ask, wait);
    else ask();
  }

  #draw() {
    this.#frame = null;
    const trace = this.#trace;
    if (trace === null) return;
    const began = performance.now();
    this.#showHead(trace);
    this.#table.update(trace, trace.settle());
    this.#graph.update(trace);
    const now = performance.now();
    this.#rest = now + 3 * (now - began);
  }

  #showHead(trace) {
    const { head } = trace;
    const { tone, title, text } = verdict(trace);
    say(this.#target, plain(head.request.target));
    put(this.#verdict, "data-tone", tone);
    say(this.#title, title);
    say(this.#text, text);
    const facts = [
      head.target && head.target.address !== head.request.target ? head.target.address : null,
      asked(head.request),
      head.source_address ? `from ${head.source_address}` : null,
      head.started_at ? new Date(head.started_at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" }) : null,
      head.finished_at && head.started_at ? `took ${duration(Date.parse(head.finished_at) - Date.parse(head.started_at))}` : null,
      head.expires_at && head.status !== "cancelled" ? `kept until ${new Date(head.expires_at).toLocaleTimeString(undefined, { timeStyle: "short" })}` : null,
    ];
    say(this.#facts, facts.filter(Boolean).join(" \u00b7 "));
    put(this.#cancel, "hidden", trace.over);
    put(this.#again, "hidden", !trace.over);
    put(this.#copies, "hidden", false);
    put(byId("copy-link"), "hidden", head.status === "cancelled");
    this.#entitle();
    const now = performance.now();
    if (!trace.over && now - this.#spoken > SPEAK_MS && trace.lastTtl) {
      this.#spoken = now;
      speak(`${title}: ${text}`);
    }
  }

  /** The window's title and the spoken word for the end; also while the page is hidden and nothing is drawn. */
  #entitle() {
    const trace = this.#trace;
    const { title, text } = verdict(trace);
    const said = `${plain(trace.head.request.target)}: ${title.toLowerCase()} \u2013 Looking glass`;
    if (document.title !== said) {
      document.title = said;
      if (trace.over) speak(`${title}. ${text} ${count(trace.rows.length, "hop")} in the table.`);
    }
  }

  #permalinkNow() {
    return this.#trace.head.status === "cancelled" ? null : this.#permalink(this.#trace.id);
  }

  async #copy(what, text) {
    const done = await copied(text);
    say(byId("announce"), done ? `${what} copied.` : "The browser did not allow copying.");
    const pressed = byId(`copy-${what.toLowerCase()}`);
    pressed.classList.add(done ? "done" : "failed");
    setTimeout(() => pressed.classList.remove("done", "failed"), 1500);
  }
}

function button(words, id, onClick) {
  const made = element("button", { type: "button", id }, words);
  made.addEventListener("click", onClick);
  return made;
}

function speak(text, skip = false) {
  if (!skip) say(byId("announce"), text);
}

/** Put text on the clipboard; pages served without TLS have only the older way. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const held = document.activeElement;
    const area = element("textarea", { class: "unseen", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    held?.focus();
    return done;
  }
}
