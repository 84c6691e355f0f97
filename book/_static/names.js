// Names for screen readers that the theme leaves out or contradicts (axe: summary-name, label-content-name-mismatch, region).
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
});
