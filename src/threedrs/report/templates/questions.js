"use strict";
// All questions: a table that draws only the rows in view, filters, and a card for each question.
//
// The address says what is shown. `#filter:benchmark=NAME&a=baseline&b=3drs&outcome=better` opens
// the table filtered, `#q=NAME:ID` a question's card.
(() => {
  const { make } = threedrs;
  const section = document.getElementById("questions");
  const form = document.getElementById("filter");
  const list = document.getElementById("question-rows");
  const viewport = list.closest(".virtual");
  const card = document.getElementById("card");
  const shown = document.getElementById("shown");
  const FIELDS = ["benchmark", "a", "b", "outcome", "right", "room", "type", "answer", "text"];
  const EXTRA_ROWS = 8; // drawn above and below what is in view
  let data = null;
  let all = []; // [benchmark, row] of every question
  let found = []; // those that the filter leaves
  let drawn = [-1, -1];
  let opened = null;

  // ---- what a question and its answers are

  const valueOf = (benchmark, run, row) => {
    const column = benchmark.runs.indexOf(run);
    return column < 0 ? null : benchmark.values[column][row];
  };
  const isRight = (benchmark, value) => !benchmark.closeness && value >= 1000;
  const markOf = (benchmark, value) => {
    if (value === null) return ["", "not asked"];
    if (benchmark.closeness) return ["", `CIDEr ${(value / 10).toFixed(0)}`];
    if (value >= 1000) return ["up", "✓ right"];
    return value > 0 ? ["", "partly"] : ["down", "✗ wrong"];
  };
  const answerOf = (benchmark, run, row) => {
    const column = benchmark.runs.indexOf(run);
    return column < 0 ? "" : data.texts[benchmark.answers[column][row]].trim() || "(no answer)";
  };
  const truthOf = (benchmark, row) => benchmark.truth[row].map((text) => data.texts[text]).join(" / ");
  const nameOf = ([benchmark, row]) => `${benchmark.name}:${benchmark.id[row]}`;
  const addressOf = (question) => `#q=${encodeURIComponent(nameOf(question))}`;

  // ---- the filter

  // A field of the form holds no line breaks, as an answer may.
  const oneLine = (text) => text.replace(/\s+/g, " ").trim();
  const wanted = () => Object.fromEntries(FIELDS.map((name) => [name, form.elements[name].value]));

  const OUTCOMES = {
    better: (a, b) => b > a,
    same: (a, b) => b === a,
    worse: (a, b) => b < a,
    both: (a, b, right) => right(a) && right(b),
    neither: (a, b, right) => !right(a) && !right(b),
  };
  const RIGHT = {
    every: (values, right) => values.every(right),
    some: (values, right) => values.some(right) && !values.every(right),
    none: (values, right) => !values.some(right),
  };

  const tester = () => {
    const asked = wanted();
    const a = data.runs.indexOf(asked.a);
    const b = data.runs.indexOf(asked.b);
    const outcome = OUTCOMES[asked.outcome];
    const everyone = RIGHT[asked.right];
    const single = data.runs.indexOf(asked.right.replace(/^(right|wrong):/, ""));
    const words = asked.text.toLowerCase();
    const answer = oneLine(asked.answer);
    return ([benchmark, row]) => {
      if (asked.benchmark && benchmark.name !== asked.benchmark) return false;
      if (asked.room && data.scenes[benchmark.scene[row]] !== asked.room) return false;
      if (asked.type && data.texts[benchmark.type[row]] !== asked.type) return false;
      const right = (value) => isRight(benchmark, value);
      if (outcome) {
        const [mine, other] = [valueOf(benchmark, a, row), valueOf(benchmark, b, row)];
        if (mine === null || other === null) return false;
        // A closeness has no right and wrong, so it has no question that both have right.
        if (benchmark.closeness && ["both", "neither"].includes(asked.outcome)) return false;
        if (!outcome(mine, other, right)) return false;
      }
      if (asked.right) {
        if (benchmark.closeness) return false;
        if (everyone) {
          if (!everyone(benchmark.values.map((values) => values[row]), right)) return false;
        } else {
          const value = valueOf(benchmark, single, row);
          if (value === null || right(value) !== asked.right.startsWith("right:")) return false;
        }
      }
      if (answer === "no object first" && benchmark.grounding) {
        if (!benchmark.no_object[benchmark.runs.indexOf(b)]?.[row]) return false;
      } else if (answer && oneLine(answerOf(benchmark, b, row)) !== answer) return false;
      if (!words) return true;
      const texts = [benchmark.id[row], data.scenes[benchmark.scene[row]],
        data.texts[benchmark.question[row]], truthOf(benchmark, row),
        ...benchmark.runs.map((run) => answerOf(benchmark, run, row))];
      return texts.some((text) => text.toLowerCase().includes(words));
    };
  };

  const apply = () => {
    found = all.filter(tester());
    shown.textContent = `${found.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} questions`;
    document.getElementById("head-a").textContent = form.elements.a.value;
    document.getElementById("head-b").textContent = form.elements.b.value;
    viewport.scrollTop = 0;
    drawn = [-1, -1];
    draw();
  };

  const filterAddress = () => {
    const asked = Object.entries(wanted()).filter(([, value]) => value);
    return `#filter:${new URLSearchParams(asked)}`;
  };

  const applyAndSay = () => {
    apply();
    history.replaceState(null, "", filterAddress());
  };

  // ---- the table

  const rowHeight = () => parseFloat(getComputedStyle(viewport).getPropertyValue("--row"));

  const cellOf = (benchmark, run, row) => {
    const [tone, words] = markOf(benchmark, valueOf(benchmark, run, row));
    const mark = make("span", words, { className: `mark ${tone}` });
    return make("td", make("div", [mark, ` ${answerOf(benchmark, run, row)}`]));
  };

  const draw = () => {
    const height = rowHeight();
    const first = Math.max(0, Math.floor(viewport.scrollTop / height) - EXTRA_ROWS);
    const inView = Math.ceil(viewport.clientHeight / height);
    const last = Math.min(found.length, first + inView + 2 * EXTRA_ROWS);
    if (drawn[0] === first && drawn[1] === last) return;
    drawn = [first, last];
    const focused = document.activeElement?.closest?.("#question-rows tr")?.dataset.place;
    const [a, b] = [data.runs.indexOf(form.elements.a.value), data.runs.indexOf(form.elements.b.value)];
    const space = (rows) => {
      const line = make("tr", make("td"), { className: "space" });
      line.setAttribute("aria-hidden", "true");
      line.firstChild.style.height = `${rows * height}px`;
      return line;
    };
    const lines = found.slice(first, last).map((question, number) => {
      const [benchmark, row] = question;
      const link = make("a", data.texts[benchmark.question[row]], { href: addressOf(question) });
      const place = `${benchmark.name} · ${data.scenes[benchmark.scene[row]]}`;
      const kind = data.texts[benchmark.type[row]];
      const line = make("tr", [
        make("th", make("div", link), { scope: "row" }),
        make("td", make("div", make("small", kind ? `${place} · ${kind}` : place))),
        make("td", make("div", truthOf(benchmark, row))),
        cellOf(benchmark, a, row), cellOf(benchmark, b, row),
      ]);
      line.dataset.place = first + number;
      line.setAttribute("aria-rowindex", first + number + 2);
      return line;
    });
    list.replaceChildren(space(first), ...lines, space(found.length - last));
    list.parentElement.setAttribute("aria-rowcount", found.length + 1);
    if (focused !== undefined) focusRow(Number(focused));
  };

  const focusRow = (place) => list.querySelector(`[data-place="${place}"] a`)?.focus({ preventScroll: true });

  const moveFocus = (place) => {
    const target = Math.min(found.length - 1, Math.max(0, place));
    const height = rowHeight();
    const top = target * height;
    if (top < viewport.scrollTop) viewport.scrollTop = top;
    if (top + 2 * height > viewport.scrollTop + viewport.clientHeight) {
      viewport.scrollTop = top + 2 * height - viewport.clientHeight;
    }
    draw();
    focusRow(target);
  };

  list.addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    moveFocus(Number(event.target.closest("tr").dataset.place) + steps[event.key]);
  });

  // ---- the card of a question

  const drawnBoxes = ([benchmark, row]) => {
    const boxes = [];
    const add = (indices, colour, label) => indices.forEach((index) => boxes.push(
      { index, box: data.boxes[benchmark.scene[row]][index], colour, label }));
    add(benchmark.true[row], section.dataset.trueColour, "true");
    add(benchmark.pointed[row], section.dataset.trueColour, "this one");
    benchmark.chosen.forEach((column, place) => {
      const run = benchmark.runs[place];
      add(column[row], data.colours[run], data.runs[run]);
    });
    return boxes;
  };

  const fillCard = (question) => {
    const [benchmark, row] = question;
    const scene = data.scenes[benchmark.scene[row]];
    const kind = data.texts[benchmark.type[row]];
    const answers = benchmark.runs.map((run) => {
      const [tone, words] = markOf(benchmark, valueOf(benchmark, run, row));
      const swatch = make("span", "", { className: "swatch" });
      swatch.style.background = data.colours[run];
      return make("li", [swatch, make("b", data.runs[run]), ` ${answerOf(benchmark, run, row)} `,
        make("span", words, { className: `mark ${tone}` })]);
    });
    card.querySelector("h3").textContent = data.texts[benchmark.question[row]];
    card.querySelector(".truth").textContent = truthOf(benchmark, row);
    card.querySelector(".answers").replaceChildren(...answers);
    card.querySelector(".source").textContent = [benchmark.name, scene, benchmark.id[row], kind]
      .filter(Boolean).join(" · ");
    const place = found.findIndex((other) => nameOf(other) === nameOf(question));
    for (const [name, step] of [["previous", -1], ["next", 1]]) {
      const button = card.querySelector(`[name=${name}]`);
      const other = place < 0 ? undefined : found[place + step];
      button.disabled = !other;
      button.onclick = () => { location.hash = addressOf(other); };
    }
    threedrs.showRoom(card.querySelector(".room"), scene, drawnBoxes(question));
  };

  const openCard = (name) => {
    const question = all.find((one) => nameOf(one) === name);
    if (!question) return false;
    fillCard(question);
    opened = name;
    if (!card.open) card.showModal();
    card.scrollTop = 0;
    card.querySelector("h3").focus();
    return true;
  };

  card.addEventListener("close", () => {
    const place = found.findIndex((question) => nameOf(question) === opened);
    opened = null;
    threedrs.leaveRoom();
    history.replaceState(null, "", filterAddress());
    if (place >= 0) moveFocus(place);
  });
  card.querySelector("[name=close]").addEventListener("click", () => card.close());

  // ---- the address

  const follow = () => {
    const hash = location.hash.slice(1);
    if (hash.startsWith("q=")) {
      openCard(decodeURIComponent(hash.slice(2)));
    } else if (hash.startsWith("filter:")) {
      const asked = new URLSearchParams(hash.slice("filter:".length));
      form.reset();
      for (const name of FIELDS) {
        if (asked.has(name)) form.elements[name].value = oneLine(asked.get(name));
      }
      apply();
      if (card.open) card.close();
      section.scrollIntoView();
      document.getElementById("questions-title").focus({ preventScroll: true });
    }
  };

  const option = (text, value = text) => make("option", text, { value });
  const fillForm = () => {
    const { a, b, right, room, type } = form.elements;
    [[a, data.pair[0]], [b, data.pair[1]]].forEach(([field, chosen]) => {
      field.append(...data.runs.map((run) => make("option", run, {
        value: run, selected: run === chosen, defaultSelected: run === chosen })));
    });
    right.append(...data.runs.flatMap((run) => [
      option(`${run} is right`, `right:${run}`), option(`${run} is not`, `wrong:${run}`)]));
    const kinds = new Set(data.benchmarks.flatMap((one) => one.type.map((text) => data.texts[text])));
    kinds.delete("");
    type.append(...[...kinds].sort().map((kind) => option(kind)));
    type.parentElement.hidden = !kinds.size;
    room.append(...[...data.scenes].sort().map((scene) => option(scene)));
  };

  const start = async () => {
    data = await threedrs.unpack(document.getElementById("questions-data").textContent);
    all = data.benchmarks.flatMap((benchmark) => benchmark.id.map((_, row) => [benchmark, row]));
    fillForm();
    let waiting = 0;
    // 15,000 questions are searched between two keystrokes, but not within each.
    form.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(applyAndSay, 80);
    });
    form.addEventListener("reset", () => setTimeout(applyAndSay));
    form.addEventListener("submit", (event) => event.preventDefault());
    viewport.addEventListener("scroll", draw, { passive: true });
    addEventListener("resize", () => { drawn = [-1, -1]; draw(); });
    addEventListener("hashchange", follow);
    section.querySelectorAll("[hidden]").forEach((part) => { part.hidden = false; });
    apply();
    follow();
    section.dataset.ready = "yes";
  };

  for (const link of document.querySelectorAll("a[data-filter]")) {
    link.href = `#filter:${link.dataset.filter}`;
  }
  start();
})();
