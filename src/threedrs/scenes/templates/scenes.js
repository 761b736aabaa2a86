"use strict";
// The scene report's filter: rows and images of the scenes that fit it; a bar of the histogram too.
(() => {
  const form = document.getElementById("filter");
  const rows = [...document.querySelectorAll("tr[data-scene]")];
  const bars = [...document.querySelectorAll(".histogram button")];
  const images = new Map([...document.querySelectorAll(".scene")].map((part) => [part.id, part]));
  let bin = null;

  const apply = () => {
    const { text, split, noted } = form.elements;
    const words = text.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      const fits = (bin === null || row.dataset.bin === bin)
        && (!split.value || row.dataset.split === split.value)
        && (!noted.checked || "noted" in row.dataset)
        && row.textContent.toLowerCase().includes(words);
      row.hidden = !fits;
      images.get(row.dataset.scene).hidden = !fits;
      count += fits ? 1 : 0;
    }
    bars.forEach((bar) => bar.setAttribute("aria-pressed", String(bar.dataset.bin === bin)));
    document.getElementById("shown").textContent = `${count} of ${rows.length} scenes`;
  };

  bars.forEach((bar) => bar.addEventListener("click", () => {
    bin = bin === bar.dataset.bin ? null : bar.dataset.bin;
    apply();
  }));
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(() => { bin = null; apply(); }));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", () => document.getElementById(location.hash.slice(1))?.focus());
  form.hidden = false;
  apply();
})();
