"use strict";
// A click on a heading of a sortable table sorts its rows; a second click turns them round. A table of more than ten rows
// also gets a field that hides the rows without the words in it. Without scripts nothing is lost.
const FILTERED = 10;
document.querySelectorAll("table[data-sortable]").forEach((table, place) => {
  const rows = () => [...table.tBodies[0].rows];
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const falling = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const numeric = heading.classList.contains("number");
      const value = (row) => {
        const text = row.cells[column].textContent.trim();
        if (!numeric) return text;
        const number = parseFloat(text.replace(/\u2212/g, "-").replace(/^</, "").replace(/,/g, ""));
        return Number.isNaN(number) ? null : number;
      };
      const sorted = rows().map((row) => [value(row), row]);
      sorted.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is not known stands last
        // Item 9 before item 10, and 12a before 12b.
        return (numeric ? a - b : a.localeCompare(b, "en", { numeric: true })) * (falling ? -1 : 1);
      });
      table.tBodies[0].append(...sorted.map(([, row]) => row));
    });
  });
  if (rows().length <= FILTERED) return;
  table.id = `table-${place}`;
  const label = document.createElement("label");
  const field = document.createElement("input");
  const found = document.createElement("span");
  label.className = "filter";
  label.append("Rows that hold ", field, found);
  field.type = "search";
  field.setAttribute("aria-controls", table.id);
  found.setAttribute("role", "status");
  table.parentElement.before(label);
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = rows();
    for (const row of all) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    found.textContent = words.length ? `${all.filter((row) => !row.hidden).length} of ${all.length}` : "";
  });
});
