"use strict";
const sheet = document.body.dataset.sheet, store = "kdray-rating-" + sheet;
const rater = document.getElementById("rater"), state = document.getElementById("state");
const radios = [...document.querySelectorAll("input[type=radio]")];
function kept() { try { return JSON.parse(localStorage.getItem(store)) || {}; } catch { return {}; } }
function show() {
  const done = radios.filter((radio) => radio.checked).length;
  state.textContent = done + " of " + radios.length / 2 + " answers rated";
}
function keep() {
  const ratings = Object.fromEntries(radios.filter((radio) => radio.checked).map((radio) => [radio.name, radio.value]));
  try { localStorage.setItem(store, JSON.stringify({ rater: rater.value, ratings })); } catch { /* a browser that keeps nothing: the csv still works */ }
  show();
}
function quoted(text) { return '"' + text.replaceAll('"', '""') + '"'; }
const before = kept();
rater.value = before.rater || "";
for (const radio of radios) {
  radio.checked = (before.ratings || {})[radio.name] === radio.value;
  radio.addEventListener("change", keep);
}
rater.addEventListener("input", keep);
document.getElementById("save").addEventListener("click", () => {
  const name = rater.value.trim();
  if (!name) { state.textContent = "Please say who you are first."; rater.focus(); return; }
  const lines = ["sheet,rater,item,side,supported"];
  for (const radio of radios.filter((each) => each.checked)) {
    const item = radio.closest("[data-item]").dataset.item, side = radio.closest("[data-side]").dataset.side;
    lines.push([quoted(sheet), quoted(name), item, side, radio.value].join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = sheet + "-" + name.replace(/[^A-Za-z0-9-]+/g, "_") + ".csv";
  link.click();
});
show();
