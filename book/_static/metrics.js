// The page of metrics: the form above its tables hides the rows that do not fit. Loaded on every page, it does
// nothing where there are no such tables, or no form.
document.addEventListener("DOMContentLoaded", () => {
  const tables = [...document.querySelectorAll("table.metric-cards")];
  // a narrow screen shows the head of its column before each cell
  for (const t of tables) {
    const heads = [...t.querySelectorAll("thead th")].map(h => h.textContent.trim());
    for (const r of t.querySelectorAll("tbody tr"))
      [...r.cells].forEach((c, i) => { if (i) c.dataset.head = heads[i]; });
  }
  const form = document.querySelector(".metric-filter");
  const own = tables.filter(t => t.classList.contains("filtered"));
  if (!form || !own.length) return;
  form.hidden = false;
  const [words, way, where] = ["words", "way", "where"].map(n => form.elements[n]);
  const fits = (row, title, wanted) => {
    const text = `${title} ${row.textContent}`.toLowerCase();
    const suites = row.cells[2].textContent.match(/\b(core|wide|stress|data|records)(?=:)/g) || [];
    return row.cells[0].textContent.includes(way.value) && wanted.every(w => text.includes(w))
      && (!where.value || suites.includes(where.value));
  };
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0, all = 0;
    for (const t of own) {
      const section = t.closest("section");
      const title = section?.querySelector("h1, h2, h3")?.textContent || "";
      let here = 0;
      for (const r of t.querySelectorAll("tbody tr")) {
        const ok = fits(r, title, wanted);
        r.hidden = !ok;
        all += 1; left += ok; here += ok;
      }
      if (section) section.hidden = !here;
    }
    form.querySelector("output").textContent = `${left} of ${all} metrics`;
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", e => e.preventDefault());
  window.addEventListener("hashchange", () => { form.reset(); show(); });
  show();
});
