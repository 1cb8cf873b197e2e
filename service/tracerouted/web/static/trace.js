// One trace as this page knows it: the service's document, and the events that change it. No DOM in here.

export const TERMINAL = new Set(["completed", "failed", "cancelled"]);

/** A hop: the service's, with its probes in a Map so that a later word on a probe replaces the earlier one. */
function hopOf(document) {
  const probes = new Map();
  for (const probe of document.probes) probes.set(freeKey(probes, probe), probe);
  return { ...document, probes };
}

// Probes are named by flow and departure, which is told in whole milliseconds: two of one flow can share it at the hop
// where the target's answers to higher TTLs count. Those get a number more.
function freeKey(probes, { flow, sent_at }) {
  let key = `${flow} ${sent_at}`;
  for (let n = 2; probes.has(key); n += 1) key = `${flow} ${sent_at} ${n}`;
  return key;
}

/** The key of the probe that `probe` is the later word on, or a free one. `more`: the hop counts one probe more. */
function keyFor(probes, probe, more) {
  const { flow, sent_at } = probe;
  let same = null;
  for (let key = `${flow} ${sent_at}`, n = 2; probes.has(key); key = `${flow} ${sent_at} ${n}`, n += 1) {
    const { outcome } = probes.get(key);
    if (outcome === "pending" || outcome === "error") return key;
    if (!more && (same === null || outcome === "timeout")) same = key;
  }
  return same ?? freeKey(probes, probe);
}

export class Trace {
  /** `document` is a trace as the service answers it. */
  constructor(document) {
    this.load(document);
  }

  /** Take a whole trace for what is known. */
  load(document) {
    const { hops, paths, ...head } = document;
    this.head = head;
    this.paths = paths;
    this.hops = new Map(hops.map((hop) => [hop.ttl, hopOf(hop)]));
    this.changed = null;
  }

  get id() {
    return this.head.id;
  }

  get over() {
    return TERMINAL.has(this.head.status);
  }

  get firstTtl() {
    return this.head.request.first_ttl;
  }

  /** The highest TTL anything is known of; 0 while nothing is. */
  get lastTtl() {
    return Math.max(0, ...this.hops.keys());
  }

  /** Hops in order, undefined where nothing is known yet. */
  get rows() {
    return Array.from({ length: Math.max(0, this.lastTtl - this.firstTtl + 1) }, (_, i) => this.hops.get(this.firstTtl + i));
  }

  /** Take an event. `changed` collects the TTLs touched until `settle`; null stands for all. */
  apply({ id, name, data }) {
    if (name === "end") {
      this.load(data);
    } else if (name === "status") {
      Object.assign(this.head, data, { revision: id });
    } else if (name === "hop") {
      this.head.revision = id;
      this.#hop(data);
      this.changed?.add(data.ttl);
    }
  }

  /** The TTLs touched since the last call, or null for all of them. */
  settle() {
    const changed = this.changed;
    this.changed = new Set();
    return changed;
  }

  #hop({ probe, ...hop }) {
    const known = this.hops.get(hop.ttl);
    const probes = known?.probes ?? new Map();
    if (probe) probes.set(keyFor(probes, probe, hop.stats.sent > (known?.stats.sent ?? 0)), probe);
    else forgetRetracted(probes, hop);
    if (!hop.responders.length && !hop.stats.sent && !probes.size) this.hops.delete(hop.ttl);
    else this.hops.set(hop.ttl, { ...hop, probes });
  }

  /** The trace as the service would answer it now, as far as is known here. */
  get document() {
    const hops = [...this.hops.values()].sort((a, b) => a.ttl - b.ttl);
    const { error, links, ...head } = this.head;
    return { ...head, hop_count: hops.length, hops: hops.map((hop) => inOrder(hop)), paths: this.paths, error, links };
  }
}

const inOrder = ({ ttl, responders, probes, stats, rate_limited }) =>
  ({ ttl, responders, probes: [...probes.values()], stats, rate_limited });

// A hop event without a probe may mean that a flow turned out to end below this TTL: its probes are gone then. It does
// not say which flow, but answers of flows that no responder has any more, and losses beyond those counted, are those.
function forgetRetracted(probes, { responders, stats }) {
  const flows = new Set(responders.flatMap((responder) => responder.flows));
  let judged = 0;
  for (const [key, probe] of probes) {
    if (probe.address !== null && !flows.has(probe.flow)) probes.delete(key);
    else if (probe.address !== null || probe.outcome === "timeout") judged += 1;
  }
  for (const [key, probe] of probes) {
    if (judged <= stats.sent) return;
    if (probe.outcome === "timeout" && !flows.has(probe.flow)) {
      probes.delete(key);
      judged -= 1;
    }
  }
  if (!stats.sent && !responders.length) probes.clear();
}
