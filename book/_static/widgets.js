// The widget manager typesets by the interface of MathJax 2: give it that of MathJax 3.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    const typeset = (element) => window.MathJax.typesetPromise && window.MathJax.typesetPromise([element]);
    window.MathJax.Hub = { Queue: ([, , element]) => typeset(element) };
  }
});
