"use strict";
// Puts what the run sends into the page, until it says that it has ended.
(() => {
  const lost = document.getElementById("connection");
  const source = new EventSource("events");
  source.addEventListener("message", (message) => {
    for (const [id, piece] of Object.entries(JSON.parse(message.data))) {
      const place = document.getElementById(id);
      if (id === "course-data" || id === "doing") place.textContent = piece;
      else place.innerHTML = piece;
    }
    lost.hidden = true;
    dispatchEvent(new Event("drawn"));
  });
  source.addEventListener("end", () => source.close());
  source.addEventListener("error", () => (lost.hidden = false));
})();
