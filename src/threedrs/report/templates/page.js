"use strict";
// Jumps: what lies in a closed part is opened, and the focus follows.
(() => {
  const follow = () => {
    const hash = decodeURIComponent(location.hash.slice(1));
    const target = hash && document.getElementById(hash);
    if (!target) return;
    const closed = target.closest("details:not([open])");
    if (closed) closed.open = true;
    if (!target.hasAttribute("tabindex")) target.tabIndex = -1;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  // Where the address is already a link changes nothing, though the reader has moved on since.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link?.hash && link.hash === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
  });
  // What lies in closed parts is printed too, and closed again behind the printer.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("main details:not([open], .long)")];
    opened.forEach((part) => { part.open = true; });
  });
  addEventListener("afterprint", () => opened.forEach((part) => { part.open = false; }));
  follow();
})();
