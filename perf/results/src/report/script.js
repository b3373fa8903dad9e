"use strict";
// A click on an entry of a legend fades what it stands for; the button changes between light and dark. All is there without this.
for (const key of document.querySelectorAll("svg .key")) {
  const group = key.dataset.group;
  if (!group) continue;
  key.addEventListener("click", () => {
    key.classList.toggle("off");
    for (const part of key.ownerSVGElement.querySelectorAll("." + group)) part.classList.toggle("off");
  });
}
const theme = document.getElementById("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
document.documentElement.dataset.ready = "true";
