// Shows the contract of the service this page comes from, and asks nobody else for anything. Where the service wants
// an API key, the page asks for one first; it is kept in memory only.
"use strict";
/* global SwaggerUIBundle */

const form = document.querySelector("form");

async function open(key) {
  const answer = await fetch("openapi.json", key ? { headers: { Authorization: `Bearer ${key}` } } : {});
  if (answer.status === 401) {
    form.querySelector("output").textContent = key ? "The service does not know this key." : "";
    form.hidden = false;
    return;
  }
  const spec = await answer.json();
  form.hidden = true;
  const ui = SwaggerUIBundle({
    dom_id: "#contract",
    spec,
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    onComplete: () => key && ui.preauthorizeApiKey("apiKey", key),
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  open(form.elements.key.value.trim());
});
open();
