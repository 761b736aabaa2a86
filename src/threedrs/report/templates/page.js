"use strict";
(() => {
  const form = document.getElementById("filter");
  const cards = [...document.querySelectorAll("[data-benchmark][data-search]")];
  const groups = [...document.querySelectorAll("[data-group]")];
  const shown = document.getElementById("shown");
  const fields = ["benchmark", "outcome", "text"];

  const words = (value) => value.split(" ").filter(Boolean);
  const matches = (card, wanted) => {
    const [kind, run] = wanted.outcome.split(":");
    const outcome = {
      "": () => true,
      better: () => words(card.dataset.better).includes(run),
      worse: () => words(card.dataset.worse).includes(run),
      right: () => card.dataset.all === "right",
      wrong: () => card.dataset.all === "wrong",
    }[kind];
    return (!wanted.benchmark || card.dataset.benchmark === wanted.benchmark)
      && Boolean(outcome && outcome())
      && card.dataset.search.includes(wanted.text.toLowerCase());
  };

  const apply = () => {
    const wanted = Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
    let count = 0;
    for (const card of cards) {
      card.hidden = !matches(card, wanted);
      count += card.hidden ? 0 : 1;
    }
    for (const group of groups) {
      group.hidden = !group.querySelector("[data-search]:not([hidden])");
    }
    shown.textContent = `${count} of ${cards.length} sampled questions shown`;
  };

  const follow = () => {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (hash.startsWith("filter:")) {
      const wanted = new URLSearchParams(hash.slice("filter:".length));
      for (const name of fields) {
        form.elements[name].value = wanted.get(name) ?? "";
      }
      apply();
      document.getElementById("examples").scrollIntoView();
      return;
    }
    const target = hash && document.getElementById(hash);
    const closed = target && target.closest("details:not([open])");
    if (closed) {
      closed.open = true;
      target.scrollIntoView();
    }
  };

  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const link of document.querySelectorAll("a[data-filter]")) {
    link.href = `#filter:${link.dataset.filter}`;
  }
  addEventListener("hashchange", follow);
  form.hidden = false;
  apply();
  follow();
})();
