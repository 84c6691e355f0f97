// Names for screen readers that the theme leaves out or contradicts (axe: summary-name, label-content-name-mismatch, region).
document.addEventListener("DOMContentLoaded", () => {
  for (const s of document.querySelectorAll("summary"))
    if (!s.textContent.trim() && !s.ariaLabel) s.setAttribute("aria-label", "Pages of this chapter");
  for (const b of document.querySelectorAll("button[aria-label], a[aria-label]"))
    if (b.innerText.trim() && !b.ariaLabel.toLowerCase().includes(b.innerText.trim().toLowerCase())) b.removeAttribute("aria-label");
  const brand = document.querySelector(".sidebar-primary-item > .navbar-brand");
  if (brand) Object.entries({ role: "navigation", "aria-label": "Home" }).forEach(([k, v]) => brand.parentElement.setAttribute(k, v));
});
