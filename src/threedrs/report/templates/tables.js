"use strict";
// Tables: columns that sort, and every table as CSV, Markdown or LaTeX to take along.
(() => {
  const { make } = threedrs;

  // What a cell says, in one line; what is only there for the eye or for screen readers aside.
  const textOf = (cell) => {
    const copy = cell.cloneNode(true);
    // A remark beside a row's name is not part of the name.
    copy.querySelectorAll(".sorter-mark, th small").forEach((mark) => mark.remove());
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const numberOf = (cell) => parseFloat(textOf(cell).replace(/,/g, ""));

  const sortBy = (table, column, descending) => {
    for (const body of table.tBodies) {
      if ("fixed" in body.dataset) continue;
      const rows = [...body.rows].filter((row) => row.cells.length > column);
      const keyed = rows.map((row) => [row,
        column === 0 ? NaN : numberOf(row.cells[column]), textOf(row.cells[column])]);
      const direction = descending ? -1 : 1;
      keyed.sort(([, a, textA], [, b, textB]) => {
        if (Number.isNaN(a) && Number.isNaN(b)) return direction * textA.localeCompare(textB);
        // A cell without a number stands last, whichever way the column is sorted.
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1;
        return direction * (a - b);
      });
      body.append(...keyed.map(([row]) => row));
    }
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      const mine = index === column;
      head.setAttribute("aria-sort", mine ? (descending ? "descending" : "ascending") : "none");
      head.querySelector(".sorter-mark").textContent = mine ? (descending ? " ▾" : " ▴") : "";
    });
  };

  for (const table of document.querySelectorAll("table[data-sort]")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const mark = make("span", "", { className: "sorter-mark", "aria-hidden": "true" });
      const button = make("button", [...head.childNodes, mark], { type: "button", className: "sorter" });
      head.append(button);
      // Scores are sorted from the highest on first, names from A on.
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sortBy(table, column, column === 0 ? now === "ascending" : now !== "descending");
      });
    });
  }

  const rowsOf = (table) => [...table.rows].map((row) => [...row.cells].flatMap(
    (cell) => [textOf(cell), ...Array(cell.colSpan - 1).fill("")]));
  const latex = (text) => text.replace(/[\\~^&%$#_{}]/g, (sign) => (
    { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" }[sign]
    ?? `\\${sign}`));
  const FORMATS = {
    CSV: ["csv", (rows) => rows.map((row) => row.map((text) => (
      /[",\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text)).join(",")).join("\n")],
    Markdown: ["md", (rows) => rows.map((row, number) => (
      `| ${row.map((text) => text.replace(/[\\|]/g, "\\$&")).join(" | ")} |`
      + (number ? "" : `\n|${row.map((_, column) => (column ? " ---: " : " --- ")).join("|")}|`)
    )).join("\n")],
    LaTeX: ["tex", (rows) => [
      "% needs \\usepackage{booktabs}",
      `\\begin{tabular}{l${"r".repeat(rows[0].length - 1)}}`, "\\toprule",
      ...rows.map((row, number) => (
        `${row.map(latex).join(" & ")} \\\\${number ? "" : "\n\\midrule"}`)),
      "\\bottomrule", "\\end{tabular}"].join("\n")],
  };

  const download = (name, text) => {
    const href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/plain" }));
    const link = make("a", "", { href, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  for (const region of document.querySelectorAll(".scroll")) {
    const table = region.querySelector(":scope > table");
    if (!table) continue;
    const label = region.getAttribute("aria-label");
    const name = label.toLowerCase().replace(/[^a-z0-9]+/g, "-");
    const buttons = Object.entries(FORMATS).map(([format, [ending, write]]) => make("button", format, {
      type: "button", "aria-label": `${label} as ${format}`,
      onclick: () => download(`${name}.${ending}`, write(rowsOf(table))) }));
    region.after(make("p", buttons, { className: "downloads" }));
  }
})();
