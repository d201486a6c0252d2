// ipywidgets' controls ask MathJax 2's queue to typeset; this hands the request to MathJax 3.
window.MathJax = window.MathJax || {};
window.MathJax.Hub = window.MathJax.Hub || {
  Config() {},
  Configured() {},
  Queue(...calls) {
    for (const call of calls) {
      const element = Array.isArray(call) ? call[2] : undefined;
      if (element && window.MathJax.typesetPromise) window.MathJax.typesetPromise([element]);
    }
  },
};
