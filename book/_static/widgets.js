// The widget manager typesets by the interface of MathJax 2: give it that of MathJax 3.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    const typeset = (element) => window.MathJax.typesetPromise && window.MathJax.typesetPromise([element]);
    window.MathJax.Hub = { Queue: ([, , element]) => typeset(element) };
  }
});

// Figures of many panels: on a phone they keep a size that can be read, and scroll in their own box.
window.addEventListener("load", () => {
  for (const image of document.querySelectorAll(".cell_output img")) {
    if (image.naturalWidth > 800) {
      image.classList.add("wide");
      image.closest(".cell_output").tabIndex = 0;
    }
  }
});
