// The theme's buttons of a block of code lie in a landmark without a name: each gets one of its own. A block is reached
// by the keyboard, for it scrolls where it is wide; the theme takes that away from those that it has not measured.
let blocks = 0;
new MutationObserver(() => {
  for (const nav of document.querySelectorAll(".md-code__nav:not([aria-label])")) {
    blocks += 1;
    nav.setAttribute("aria-label", `Code ${blocks}`);
  }
  for (const code of document.querySelectorAll("pre > code:not([tabindex])")) code.tabIndex = 0;
}).observe(document.body, { attributeFilter: ["tabindex"], childList: true, subtree: true });
