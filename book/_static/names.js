// Names for screen readers that the theme leaves out or contradicts (axe: summary-name, label-content-name-mismatch, region), and a way for
// keyboards to equations that are wider than the page (axe: scrollable-region-focusable).
document.addEventListener("DOMContentLoaded", () => {
  for (const s of document.querySelectorAll("summary"))
    if (!s.textContent.trim() && !s.ariaLabel) s.setAttribute("aria-label", "Pages of this chapter");
  for (const e of document.querySelectorAll("button[aria-label], a[aria-label], summary[aria-label]"))
    if (e.innerText.trim() && !e.ariaLabel.toLowerCase().includes(e.innerText.trim().toLowerCase())) e.removeAttribute("aria-label");
  // its icons have titles of their own, also when they have become drawings
  for (const i of document.querySelectorAll(".theme-switch-button > *")) {
    i.removeAttribute("title");
    i.removeAttribute("aria-labelledby");
    i.setAttribute("aria-hidden", "true");
    i.querySelector("title")?.remove();
  }
  const brand = document.querySelector(".sidebar-primary-item > .navbar-brand");
  if (brand) Object.entries({ role: "navigation", "aria-label": "Home" }).forEach(([k, v]) => brand.parentElement.setAttribute(k, v));
  // docutils gives references roles that are deprecated, and a list children that it may not have
  for (const e of document.querySelectorAll(".citation-list, .citation")) e.removeAttribute("role");
  const reach = () => {
    for (const m of document.querySelectorAll("div.math")) m.toggleAttribute("tabindex", m.scrollWidth > m.clientWidth);
    for (const m of document.querySelectorAll("div.math[tabindex]")) m.tabIndex = 0;
  };
  reach();
  addEventListener("resize", reach);
});
