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
  if (!answer.ok) {
    throw new Error(`openapi.json: ${answer.status}`);
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

function show(key) {
  open(key).catch((error) => {
    document.querySelector("#contract").textContent = `The contract could not be loaded: ${error.message}`;
  });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show(form.elements.key.value.trim());
});
show();
