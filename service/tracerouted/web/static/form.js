// The form: what was asked becomes a request, and a problem is shown at the field it is about.

import { Problem, useKey } from "./api.js";
import { byId, put, say } from "./dom.js";

const PORTS = { udp: "32434", tcp: "80", sctp: "80" };
const form = byId("form");
const fields = [...form.elements].filter((control) => control.name);
const defaults = new Map(fields.map((field) => [field.name, field.placeholder])); // as the page came
let countdown = null;

/** The request as it stands in the form; fields left alone are left out. */
export function readForm() {
  const request = {};
  for (const field of fields) {
    if (field.disabled) continue;
    if (field.type === "checkbox") {
      if (!field.checked) request[field.name] = false;
      continue;
    }
    const text = field.value.trim();
    if (field.name === "target") request.target = text;
    else if (field.name === "family" && text === "any") continue;
    else if (text) request[field.name] = field.inputMode === "numeric" && /^-?\d{1,15}$/.test(text) ? Number(text) : text;
  }
  return request;
}

/** What a field left empty stands for. */
const defaultOf = ({ name }, { protocol }) => (name === "port" ? PORTS[protocol] : defaults.get(name));

/** Fill the form with a request; what is at its default is left empty. */
export function fillForm(request) {
  for (const field of fields) {
    const value = request[field.name];
    if (field.type === "checkbox") field.checked = value ?? true;
    else if (field.tagName === "SELECT") field.value = value ?? field.options[0].value;
    else field.value = String(value ?? "") === defaultOf(field, request) ? "" : String(value ?? "");
  }
  adapt();
}

/** Allow what the protocol has: icmp no port, only udp flows. */
function adapt() {
  const protocol = form.elements.protocol.value;
  const port = form.elements.port;
  port.disabled = protocol === "icmp";
  port.placeholder = PORTS[protocol] ?? "none";
  for (const name of ["flows", "source_port"]) form.elements[name].disabled = protocol !== "udp";
  form.elements.flows.placeholder = protocol === "udp" ? "1" : "UDP only";
  form.elements.source_port.placeholder = protocol === "udp" ? "chosen" : "UDP only";
}

/** Take away every word of complaint. */
export function clearProblems() {
  clearInterval(countdown);
  for (const error of form.querySelectorAll(".error")) say(error, "");
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  put(byId("problem"), "hidden", true);
}

/** Show a problem in its own words, at its fields where it names any. */
export function showProblem(problem) {
  clearProblems();
  const named = new Set();
  const rest = [];
  for (const { pointer, detail } of problem.errors ?? []) {
    const field = fields.find((control) => `/${control.name}` === pointer);
    if (!field) {
      rest.push(pointer ? `${pointer.slice(1)}: ${detail}` : detail);
      continue;
    }
    complain(field, byId(`${field.name}-error`), detail);
    if (field.closest("#more")) byId("more").open = true;
    named.add(field);
  }
  let first = fields.find((field) => named.has(field));
  if (problem.status === 401) {
    put(byId("key-field"), "hidden", false);
    complain(byId("key"), byId("key-error"), problem.message);
    first = byId("key");
  }
  if (!first || rest.length) showBox(problem, [first ? null : problem.message, ...rest].filter(Boolean).join(" "));
  // A field that is disabled cannot take the focus; its words stand there all the same.
  (first && !first.disabled ? first : form.elements.target).focus();
}

function complain(field, error, detail) {
  say(error, error.textContent ? `${error.textContent}; ${detail}` : detail);
  put(field, "aria-invalid", "true");
}

function showBox(problem, text) {
  const words = byId("problem-text");
  const again = byId("retry");
  const passing = problem.status === 0 || problem.retryAfter !== null;
  put(again, "hidden", !passing);
  put(byId("problem"), "hidden", false);
  let left = problem.retryAfter ?? 0;
  const end = Date.now() + left * 1000;
  say(words, left ? `${text} It will take requests again in ${left} s.` : text);
  const show = () => {
    left = Math.max(0, Math.ceil((end - Date.now()) / 1000));
    say(again, left ? `Try again in ${left} s` : "Try again");
    again.disabled = left > 0;
    if (!left) clearInterval(countdown);
  };
  show();
  if (left) countdown = setInterval(show, 500);
}

/** Wire the form: `onStart(request)` starts a trace and may throw `Problem`. */
export function openForm(onStart) {
  const start = byId("start");
  let starting = false;
  form.elements.protocol.addEventListener("change", adapt);
  // A complaint goes with the first change to its field.
  form.addEventListener("input", ({ target: field }) => {
    if (!field.hasAttribute("aria-invalid")) return;
    field.removeAttribute("aria-invalid");
    say(byId(field.getAttribute("aria-describedby")), "");
  });
  byId("retry").addEventListener("click", () => form.requestSubmit());
  byId("defaults").addEventListener("click", () => fillForm({ target: form.elements.target.value }));
  for (const button of document.querySelectorAll("button.example")) {
    button.addEventListener("click", () => {
      fillForm({ ...button.dataset });
      form.requestSubmit();
    });
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (starting) return;
    clearProblems();
    if (!byId("key-field").hidden) useKey(byId("key").value.trim());
    starting = true;
    put(start, "aria-busy", "true");
    try {
      await onStart(readForm());
      put(byId("key-field"), "hidden", true);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      showProblem(error);
    } finally {
      starting = false;
      put(start, "aria-busy", null);
    }
  });
  adapt();
}

/** Offer only the protocols that some family can be traced with. */
export function offerProtocols(readiness) {
  const known = Object.values(readiness.families ?? {}).map((family) => family.protocols).filter(Boolean);
  if (!known.length) return;
  for (const option of [...form.elements.protocol.options]) {
    if (!known.some((protocols) => protocols.includes(option.value)) && !option.selected) option.remove();
  }
}
