// The table of hops: one row per TTL, kept and changed in place, so that nothing moves but what has news.

import { element, put, say } from "./dom.js";
import { COLOURS, axisEnd, axisMarks, picture } from "./picture.js";
import { latency, ms, percent, plain, ranges } from "./words.js";

const SHOWN = 8; // responders of a hop before the rest is folded away

const COLUMNS = [
  ["ttl", "TTL", "Time to live: how many hops away"],
  ["host", "Host", "Reverse name over address"],
  ["asn", "AS", "Autonomous system the address is announced by"],
  ["loss", "Loss", "Share of probes without an answer"],
  ["sent", "Sent", "Probes answered or given up on"],
  ["last", "Last", "Latest round-trip time, ms"],
  ["avg", "Avg", "Mean round-trip time, ms"],
  ["best", "Best", "Shortest round-trip time, ms"],
  ["worst", "Worst", "Longest round-trip time, ms"],
  ["stdev", "StDev", "Standard deviation of the round-trip times, ms"],
  ["jitter", "Jitter", "Mean difference of consecutive round-trip times, ms"],
];
const NUMBERS = COLUMNS.slice(3).map(([name]) => name);

/** The table: `node` goes into the page; `update(trace, changed)` brings it up to date (null: every row). */
export class HopTable {
  #rows = [];
  #end = 0;
  #decimals = 2;

  constructor() {
    this.#axis = element("span", { class: "axis", "aria-hidden": "true" });
    const heads = COLUMNS.map(([name, label, title]) => element("th", { class: name, scope: "col", role: "columnheader", title }, label));
    heads.push(element("th", { class: "shape", scope: "col", role: "columnheader" }, element("span", { class: "unseen" }, "Latency picture"), this.#axis));
    this.#body = element("tbody", { role: "rowgroup" });
    this.#caption = element("caption", { class: "unseen" });
    this.#table = element("table", { class: "hops", role: "table" }, this.#caption,
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...heads)), this.#body);
    this.#note = element("p", { class: "note", hidden: true },
      element("span", { class: "chip" }, "limits answers"),
      " This router answers only so many probes. Later hops do not share its loss, so it is no loss on the path.");
    this.node = element("div", {}, this.#table, this.#note);
  }

  #axis;
  #body;
  #caption;
  #table;
  #note;

  /** Forget all rows: another trace follows. */
  clear() {
    this.#rows = [];
    this.#end = 0;
    this.#body.replaceChildren();
  }

  update(trace, changed) {
    const rows = trace.rows;
    const first = trace.firstTtl;
    say(this.#caption, `Hops to ${plain(trace.head.request.target)}`);
    this.#table.classList.toggle("terse", !trace.head.request.resolve_names && !trace.head.request.lookup_asn);
    this.#table.classList.toggle("no-as", !rows.some((hop) => hop?.responders.some(({ asn }) => asn)) && !trace.head.request.lookup_asn);
    const end = axisEnd(trace.hops.values(), this.#end);
    let all = changed === null;
    if (end !== this.#end) {
      this.#end = end;
      this.#decimals = end <= 20 ? 2 : 1;
      this.#drawAxis();
      all = true;
    }
    while (this.#rows.length > rows.length) this.#rows.pop().node.remove();
    while (this.#rows.length < rows.length) {
      const row = new Row(first + this.#rows.length);
      this.#rows.push(row);
      this.#body.append(row.node);
      changed?.add(row.ttl);
    }
    const median = (i) => rows[i]?.stats.median_ms ?? null;
    let answersBeyond = false;
    for (let i = rows.length - 1; i >= 0; i -= 1) {
      const ttl = first + i;
      const touched = all || changed.has(ttl - 1) || changed.has(ttl) || changed.has(ttl + 1);
      this.#rows[i].update(rows[i], { touched, trace, end, decimals: this.#decimals, above: median(i - 1), below: median(i + 1), answersBeyond });
      answersBeyond ||= Boolean(rows[i]?.responders.length);
    }
    put(this.#note, "hidden", !rows.some(limits));
    put(this.#table, "hidden", trace.over && !rows.length);
  }

  #drawAxis() {
    const marks = axisMarks(this.#end);
    const decimals = marks.some(({ at }) => Math.abs(at - Math.round(at)) > 1e-9) ? (this.#end < 1 ? 2 : 1) : 0;
    const labels = marks.map(({ at, left }, i) => {
      const label = element("span", {}, at.toFixed(decimals) + (i === marks.length - 1 ? " ms" : ""));
      label.style.setProperty("left", `${left}%`);
      return label;
    });
    this.#axis.replaceChildren(...labels, element("span", { class: "lost" }, "lost"));
  }
}

class Row {
  #cells = {};
  #hosts = [];
  #whole = false;
  #silent = null;

  constructor(ttl) {
    this.ttl = ttl;
    this.#cells.ttl = element("th", { class: "ttl", scope: "row", role: "rowheader" }, String(ttl));
    this.#cells.host = element("td", { class: "host", role: "cell" });
    this.#cells.asn = element("td", { class: "asn", role: "cell" });
    for (const name of NUMBERS) {
      const [, label] = COLUMNS.find(([column]) => column === name);
      this.#cells[name] = element("td", { class: name, role: "cell", "data-label": label });
    }
    this.#picture = picture();
    this.#cells.shape = element("td", { class: "shape", role: "cell" }, this.#picture.svg);
    this.node = element("tr", { role: "row" }, ...Object.values(this.#cells));
    this.#more = element("button", { type: "button", class: "more" });
    this.#more.addEventListener("click", () => {
      this.#whole = !this.#whole;
      this.#fold();
    });
  }

  #picture;
  #more;

  update(hop, { touched, trace, end, decimals, above, below, answersBeyond }) {
    // Silence that later hops do not share is the router's own choice: shown, but not as loss on the path.
    const innocent = Boolean(hop && (limits(hop) || (!hop.responders.length && answersBeyond)));
    this.node.classList.toggle("innocent", innocent);
    if (!touched) return;
    this.node.classList.toggle("waiting", !hop?.stats.sent);
    this.node.classList.toggle("silent", !hop?.responders.length);
    this.#showHosts(hop, trace);
    this.#showNumbers(hop, decimals);
    this.#picture.draw(hop, end, above, below);
    put(this.#picture.svg, "aria-label", spoken(hop));
  }

  #showNumbers(hop, decimals) {
    const stats = hop?.stats;
    const cells = this.#cells;
    say(cells.loss, percent(stats?.loss_pct));
    cells.loss.classList.toggle("some", Boolean(stats?.lost));
    put(cells.loss, "title", limits(hop) ? "This router limits its answers; later hops do not share the loss." : null);
    say(cells.sent, stats?.sent ? String(stats.sent) : "");
    say(cells.last, ms(last(hop), decimals));
    say(cells.avg, ms(stats?.avg_ms, decimals));
    say(cells.best, ms(stats?.min_ms, decimals));
    say(cells.worst, ms(stats?.max_ms, decimals));
    say(cells.stdev, ms(stats?.stddev_ms, decimals));
    say(cells.jitter, ms(stats?.jitter_ms, decimals));
  }

  #showHosts(hop, trace) {
    const responders = hop?.responders ?? [];
    if (!responders.length) {
      this.#hosts = [];
      const words = hop?.stats.sent ? "no answer" : "waiting";
      if (this.#silent !== words) {
        this.#cells.host.replaceChildren(element("span", { class: "nobody" }, words));
        this.#cells.asn.replaceChildren();
        this.#silent = words;
      }
      return;
    }
    if (this.#silent !== null) {
      this.#cells.host.replaceChildren();
      this.#silent = null;
    }
    if (this.#hosts.length > responders.length) {
      for (const host of this.#hosts.splice(responders.length)) host.remove();
    }
    while (this.#hosts.length < responders.length) {
      const host = new Host(this.#hosts.length);
      this.#hosts.push(host);
      this.#cells.host.append(host.node);
      this.#cells.asn.append(host.asn);
    }
    const facts = probeFacts(hop);
    responders.forEach((responder, i) => {
      this.#hosts[i].update(responder, hop, trace, facts.get(responder.address));
      this.#hosts[i].asn.classList.toggle("same", responder.asn?.number === responders[i - 1]?.asn?.number);
    });
    this.#fold();
  }

  #fold() {
    const folded = this.#hosts.length > SHOWN && !this.#whole;
    this.#hosts.forEach((host, i) => host.hide(folded && i >= SHOWN));
    if (this.#hosts.length > SHOWN) {
      say(this.#more, this.#whole ? "Show fewer" : `and ${this.#hosts.length - SHOWN} more`);
      put(this.#more, "aria-expanded", String(this.#whole));
      if (this.#cells.host.lastChild !== this.#more) this.#cells.host.append(this.#more);
    } else {
      this.#more.remove();
    }
  }
}

/** One responder of a hop: two lines, whatever is known, so that a late name moves nothing. */
class Host {
  constructor(index) {
    this.#swatch = element("span", { class: `swatch c${index % COLOURS}`, "aria-hidden": "true" });
    this.#name = element("bdi", { class: "name" });
    this.#address = element("bdi", { class: "address" });
    this.#share = element("span", { class: "share" });
    this.#chips = element("span", { class: "chips" });
    this.#below = element("span", { class: "below" }, this.#address, this.#chips, this.#share);
    this.node = element("div", { class: "responder" }, element("span", { class: "above" }, this.#swatch, this.#name), this.#below);
    this.#number = element("span", { class: "above" });
    this.#owner = element("bdi", { class: "below" });
    this.asn = element("div", { class: "responder" }, this.#number, " ", this.#owner);
  }

  #swatch;
  #name;
  #address;
  #share;
  #chips;
  #below;
  #number;
  #owner;
  #said = "";

  update({ address, hostname, asn, flows, received }, hop, trace, { refused, mpls } = {}) {
    const several = hop.responders.length > 1;
    put(this.#swatch, "hidden", !several);
    const name = hostname ? plain(hostname) : address;
    say(this.#name, name);
    put(this.#name, "title", name.length > 24 ? name : null);
    this.#name.classList.toggle("address", !hostname);
    say(this.#address, hostname ? address : "");
    const shares = [];
    if (several) shares.push(`${received} of ${hop.stats.received}`);
    if (trace.head.request.flows > 1) shares.push(`${flows.length === 1 ? "flow" : "flows"} ${ranges(flows)}`);
    const share = shares.join(" \u00b7 ");
    say(this.#share, share);
    put(this.#share, "title", share.length > 24 ? share : null);
    this.#showChips([
      address === trace.head.target?.address && ["goal", "target", "The address traced"],
      refused && ["refused", "says unreachable", "This address says that the target cannot be reached"],
      limits(hop) && ["", "limits answers", "This router answers only so many probes; later hops do not share its loss"],
      mpls && ["mpls", `MPLS ${mpls}`, "Label stack of the packet when it expired: label, traffic class, TTL"],
    ].filter(Boolean));
    put(this.#below, "hidden", !this.#below.textContent);
    say(this.#number, asn ? `AS${asn.number}` : "");
    say(this.#owner, asn?.name ? plain(asn.name) : "");
    put(this.#owner, "title", asn?.name ? plain(asn.name) : null);
    put(this.#owner, "hidden", !asn?.name);
  }

  hide(hidden) {
    put(this.node, "hidden", hidden);
    put(this.asn, "hidden", hidden);
  }

  remove() {
    this.node.remove();
    this.asn.remove();
  }

  #showChips(chips) {
    const saying = JSON.stringify(chips);
    if (saying === this.#said) return;
    this.#said = saying;
    this.#chips.replaceChildren(...chips.map(([kind, words, title]) => element("span", { class: `chip ${kind}`, title }, words)));
  }
}

/** Per address of a hop: whether it refused, and the label stack it quoted last. */
function probeFacts(hop) {
  const facts = new Map();
  for (const { address, outcome, mpls } of hop.probes.values()) {
    if (address === null || (outcome !== "unreachable" && !mpls.length)) continue;
    const known = facts.get(address) ?? {};
    facts.set(address, {
      refused: known.refused || outcome === "unreachable",
      mpls: mpls.length ? mpls.map(({ label, tc, ttl }) => `${label}/${tc}/${ttl}`).join(" ") : known.mpls,
    });
  }
  return facts;
}

/** Whether a hop has loss that is its own reluctance to answer. */
const limits = (hop) => Boolean(hop?.rate_limited && hop.stats.lost);

/** The latest round-trip time of a hop, in the order sent. */
function last(hop) {
  let latest = null;
  for (const probe of hop?.probes.values() ?? []) {
    if (probe.rtt_ms !== null && (latest === null || probe.sent_at >= latest.sent_at)) latest = probe;
  }
  return latest?.rtt_ms;
}

function spoken(hop) {
  if (!hop?.stats.sent) return "nothing yet";
  const { median_ms: median, min_ms: best, max_ms: worst, loss_pct: loss } = hop.stats;
  return median === null ? "no answer" : `median ${latency(median)}, from ${latency(best)} to ${latency(worst)}, ${percent(loss)} lost`;
}
