// Before anything is drawn: the theme that was chosen here, if one was. A script of its own, since the page's modules
// run after the first picture.
"use strict";
try {
  const chosen = localStorage.getItem("pricefeedd.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing: the system's theme it is.
}
