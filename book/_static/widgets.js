// The widget manager typesets by the interface of MathJax 2: give it that of MathJax 3.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    const typeset = (element) => window.MathJax.typesetPromise && window.MathJax.typesetPromise([element]);
    window.MathJax.Hub = { Queue: ([, , element]) => typeset(element) };
  }
});

// Figures of many panels: on a phone they keep half their size and scroll in their own box, by the keyboard, too.
window.addEventListener("load", () => {
  const boxes = new Set();
  for (const image of document.querySelectorAll(".bd-article :is(.cell_output, figure) img")) {
    image.style.setProperty("--half-its-size", `${image.naturalWidth / 2}px`);
    boxes.add(image.closest(".text_html, .cell_output, figure"));
  }
  const reach = () => {
    for (const box of boxes) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  reach();
  window.addEventListener("resize", reach);
});
