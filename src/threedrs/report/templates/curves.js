"use strict";
// Training curves: smoothed, with the raw line behind; and the legend, which works on every chart.
(() => {
  const { shape } = threedrs;
  const [WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP] = [420, 240, 46, 20, 30, 12];
  const SMOOTHED_OVER = 25; // a value is the mean of one in so many of all points

  const smooth = (values) => {
    const reach = Math.floor(values.length / SMOOTHED_OVER / 2);
    let sum = 0;
    const sums = [0, ...values.map((value) => { sum += value; return sum; })];
    return values.map((_, at) => {
      const [from, to] = [Math.max(0, at - reach), Math.min(values.length, at + reach + 1)];
      return (sums[to] - sums[from]) / (to - from);
    });
  };

  // Four to seven round numbers between two values.
  const ticksOf = (low, high) => {
    const rough = (high - low || 1) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
    const first = Math.ceil(low / step);
    const count = Math.floor(high / step) - first + 1;
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return Array.from({ length: Math.max(0, count) }, (_, at) => (
      [(first + at) * step, ((first + at) * step).toFixed(digits)]));
  };

  const draw = (svg, lines, [from, to]) => {
    const shown = lines.map((line) => {
      const kept = line.steps.map((step, at) => at).filter((at) => line.steps[at] >= from && line.steps[at] <= to);
      return { ...line, kept };
    }).filter((line) => line.kept.length);
    const heights = shown.flatMap((line) => line.kept.map((at) => line.smooth[at])).sort((a, b) => a - b);
    // Spikes of the raw line run out of the chart, as they would flatten all the rest.
    const [least, most] = [heights[0] ?? 0, heights[heights.length - 1] ?? 1];
    const margin = (most - least || Math.abs(most) || 1) * 0.15;
    const [low, high] = [least - margin, most + margin];
    const x = (step) => LEFT + (step - from) / (to - from || 1) * (WIDTH - LEFT - RIGHT);
    const y = (value) => HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - TOP);
    const parts = [];
    for (const [value, text] of ticksOf(low, high)) {
      parts.push(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "grid" }),
        shape("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, text));
    }
    for (const [value, text] of ticksOf(from, to)) {
      parts.push(shape("text", { x: x(value), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, text));
    }
    const clip = shape("svg", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - BOTTOM - TOP,
      viewBox: `${LEFT} ${TOP} ${WIDTH - LEFT - RIGHT} ${HEIGHT - BOTTOM - TOP}` });
    for (const kind of ["raw", "smooth"]) {
      for (const line of shown) {
        const points = line.kept.map((at) => `${x(line.steps[at]).toFixed(1)},${y(line[kind][at]).toFixed(1)}`);
        clip.append(shape("polyline", { points: points.join(" "), stroke: line.colour, class: kind, "data-run": line.run }));
      }
    }
    svg.replaceChildren(...parts, clip);
  };

  const start = (figure, { runs, colours }, curve) => {
    const lines = curve.lines.map(({ run, steps, values }) => ({ run: runs[run], colour: colours[run],
      steps, raw: values, smooth: smooth(values) }));
    const ends = [Math.min(...lines.map((line) => line.steps[0])), Math.max(...lines.map((line) => line.steps.at(-1)))];
    let range = ends;
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", tabindex: 0,
      "aria-label": `${curve.name} over optimizer steps; keys: + and - zoom, arrows move, 0 shows all` });
    svg.style.width = `min(100%, ${WIDTH}px)`;
    const show = (from, to) => {
      const length = Math.min(ends[1] - ends[0], Math.max((ends[1] - ends[0]) / 500, to - from));
      const begin = Math.min(Math.max(from, ends[0]), ends[1] - length);
      range = [begin, begin + length];
      draw(svg, lines, range);
    };
    const zoom = (factor) => {
      const [middle, half] = [(range[0] + range[1]) / 2, (range[1] - range[0]) / 2 * factor];
      show(middle - half, middle + half);
    };
    const move = (share) => {
      const way = share * (range[1] - range[0]);
      show(range[0] + way, range[1] + way);
    };
    const stepAt = (event) => {
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) / box.width * WIDTH;
      return range[0] + (at - LEFT) / (WIDTH - LEFT - RIGHT) * (range[1] - range[0]);
    };
    let pressed = null;
    svg.addEventListener("pointerdown", (event) => { pressed = stepAt(event); });
    svg.addEventListener("pointerup", (event) => {
      const released = stepAt(event);
      // Less than a fiftieth of the width is a click that slipped.
      if (pressed !== null && Math.abs(released - pressed) > (range[1] - range[0]) / 50) {
        show(Math.min(pressed, released), Math.max(pressed, released));
      }
      pressed = null;
    });
    svg.addEventListener("dblclick", () => show(...ends));
    svg.addEventListener("keydown", (event) => {
      const actions = { "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1.4), 0: () => show(...ends),
        ArrowLeft: () => move(-0.2), ArrowRight: () => move(0.2) };
      if (!actions[event.key]) return;
      event.preventDefault();
      actions[event.key]();
    });
    figure.querySelector(".chart").replaceChildren(svg);
    show(...ends);
  };

  // The legend: a run that is pointed at, focused or pressed stands out in every chart.
  const legend = document.getElementById("legend");
  const rule = document.head.appendChild(document.createElement("style"));
  let pinned = null;
  const highlight = (run) => {
    rule.textContent = run === null ? ""
      : `[data-run]:not([data-run="${CSS.escape(run)}"]) { opacity: 0.12; }`;
  };
  for (const button of legend?.querySelectorAll("button") ?? []) {
    const run = button.dataset.of;
    button.setAttribute("aria-pressed", "false");
    ["pointerenter", "focus"].forEach((name) => button.addEventListener(name, () => highlight(run)));
    ["pointerleave", "blur"].forEach((name) => button.addEventListener(name, () => highlight(pinned)));
    button.addEventListener("click", () => {
      pinned = pinned === run ? null : run;
      legend.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.of === pinned)));
      highlight(pinned);
    });
  }

  const store = document.getElementById("curves-data");
  if (store) {
    threedrs.unpack(store.textContent).then((data) => {
      document.querySelectorAll("[data-curve]").forEach((figure) => (
        start(figure, data, data.curves[Number(figure.dataset.curve)])));
    });
  }
})();
