"use strict";
// A click on a heading of a sortable table sorts its rows; a second click turns them round. Without scripts nothing is lost.
for (const table of document.querySelectorAll("table[data-sortable]")) {
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
        if (!numeric) return text.toLowerCase();
        const number = parseFloat(text.replace(/\u2212/g, "-").replace(/^</, "").replace(/,/g, ""));
        return Number.isNaN(number) ? null : number;
      };
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null); // what is not known stands last
        return (a < b ? -1 : a > b ? 1 : 0) * (falling ? -1 : 1);
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
