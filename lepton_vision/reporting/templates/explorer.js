(function () {
  "use strict";
  function share(part, whole) { return whole > 0 ? part / whole : NaN; }
  function text(value, digits) { return isFinite(value) ? value.toFixed(digits === undefined ? 3 : digits) : "–"; }
  function wilson(part, whole, z) {
    if (!(whole > 0)) { return ""; }
    var p = part / whole, s = z * z, middle = (p + s / (2 * whole)) / (1 + s / whole);
    var half = z / (1 + s / whole) * Math.sqrt(p * (1 - p) / whole + s / (4 * whole * whole));
    return text(Math.max(0, Math.min(middle - half, p)), 2) + " – " + text(Math.min(1, Math.max(middle + half, p)), 2);
  }
  function mark(svg, name, attributes) {
    var one = document.createElementNS("http://www.w3.org/2000/svg", name);
    Object.keys(attributes).forEach(function (key) { one.setAttribute(key, attributes[key]); });
    svg.appendChild(one);
    return one;
  }
  function start(root) {
    var data = JSON.parse(root.getAttribute("data-explorer")), frame = data.frame, at = data.at;
    function find(name) { return root.querySelector("[data-" + name + "]"); }
    function put(name, value) {
      root.querySelectorAll("[data-out='" + name + "']").forEach(function (one) { one.textContent = value; });
    }
    function along(value) { return (value - frame.low) / (frame.high - frame.low) * frame.side; }
    var slider = find("slider"), typed = find("typed"), rate = find("rate"), rateTyped = find("rate-typed");
    var plots = root.querySelectorAll("svg.plot");
    var dot = mark(plots[0], "circle", { r: 6, "class": "now" });
    var line = mark(plots[1], "line", { y1: frame.top, y2: frame.top + frame.side, "class": "now" });
    function show(told) {
      var tp = data.tp[at], fp = data.fp[at], fn = data.positives - tp, tn = data.negatives - fp, t = data.t[at];
      var sensitivity = share(tp, data.positives), specificity = share(tn, data.negatives);
      var p = Number(rateTyped.value) / 100;
      var ppv = share(p * sensitivity, p * sensitivity + (1 - p) * (1 - specificity));
      var npv = share((1 - p) * specificity, (1 - p) * specificity + p * (1 - sensitivity));
      put("sensitivity", text(sensitivity)); put("specificity", text(specificity));
      var own = at === data.at ? data.ranges : ["", ""];
      put("sensitivity-range", own[0] || wilson(tp, data.positives, data.z));
      put("specificity-range", own[1] || wilson(tn, data.negatives, data.z));
      put("ppv", text(ppv)); put("npv", text(npv));
      put("tp", tp); put("fn", fn); put("fp", fp); put("tn", tn);
      put("found", text(1000 * p * sensitivity, 0)); put("ill", text(1000 * p, 0));
      put("missed", text(1000 * p * (1 - sensitivity), 0));
      put("alarms", text(1000 * (1 - p) * (1 - specificity), 0));
      if (!told) { typed.value = String(t < 0.1 ? Number(t.toPrecision(4)) : Number(t.toFixed(4))); }
      slider.value = String(at);
      slider.setAttribute("aria-valuetext", "threshold " + typed.value + ", sensitivity " + text(sensitivity) +
        ", specificity " + text(specificity));
      dot.setAttribute("cx", frame.left + along(1 - specificity));
      dot.setAttribute("cy", frame.top + frame.side - along(sensitivity));
      line.setAttribute("x1", frame.left + along(Math.min(t, 1)));
      line.setAttribute("x2", frame.left + along(Math.min(t, 1)));
      root.setAttribute("data-at", at);
    }
    function typedThreshold() {
      var wanted = Number(typed.value);
      if (typed.value === "" || !isFinite(wanted)) { return; }
      var k = 0;
      while (k < data.t.length - 1 && data.t[k] < wanted) { k += 1; }
      at = k;
      show(data.complete);
    }
    function setRate(value, from) {
      if (value === "" || !isFinite(Number(value))) { return; }
      var kept = Math.min(100, Math.max(0, Number(value)));
      if (from !== rate) { rate.value = String(kept); }
      if (from !== rateTyped) { rateTyped.value = String(kept); }
      show(true);
    }
    slider.addEventListener("input", function () { at = Number(slider.value); show(false); });
    typed.addEventListener("change", typedThreshold);
    rate.addEventListener("input", function () { setRate(rate.value, rate); });
    rateTyped.addEventListener("input", function () { setRate(rateTyped.value, rateTyped); });
    find("back").addEventListener("click", function () {
      at = data.at;
      setRate(String(Number((100 * data.prevalence).toFixed(2))));
      show(false);
    });
    find("live").hidden = false;
    show(false);
  }
  document.querySelectorAll("[data-explorer]").forEach(start);
}());
